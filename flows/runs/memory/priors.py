"""What a run's priors take: weights and, for each picture, what their networks keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch

from dreampolish.priors.folders.contents import Role
from dreampolish.priors.folders.source import PriorSource, json_object
from dreampolish.priors.latents import overflows
from dreampolish.priors.multiview.loading import contents_of_any
from dreampolish.priors.rehearsal.counting import AdapterBytes, NetworkBytes, adapter_bytes, network_bytes
from schemas.config.run import Config
from stages.runtime.files import project_file

GIB = 2**30
NETWORKS, AUTOENCODER = ("unet", "transformer"), "vae"
OPENED_WHOLE, OPENED_AS_STORED = 4, 2
"""Bytes of a number of a CLIP or BERT tower, which is opened as float32, and of T5, which is opened as it is stored, in halves."""
T5_FROM = 10**9
"""Parameters of a tower from which it is taken for a T5: CLIP's largest text tower has 0.7e9."""


@dataclass(frozen=True)
class CountedPrior:
    """A prior and its bytes: score network, autoencoder and projection always; towers while they read."""

    image_size: int
    weights: Mapping[str, int]
    towers: int
    networks: NetworkBytes


NOTHING = CountedPrior(
    image_size=0, weights={"network": 0, "autoencoder": 0, "projection": 0}, towers=0, networks=NetworkBytes(0, 0, 0, 0)
)
"""A prior that a run does not open, or one that runs outside of torch."""


@dataclass(frozen=True)
class CountedPriors:
    """All priors of a run, by role, and the LoRA on the text prior with the copy of the network that it may need."""

    by_role: Mapping[Role, CountedPrior]
    adapter: AdapterBytes
    adapter_copy: int


def counted_priors(config: Config) -> CountedPriors:
    """Count them from configs and headers; seconds for the networks of Stable Diffusion. PriorError where one cannot be opened."""
    found = {role: _counted(config, role) for role in ("text", "view", "normals")}
    text, formats = found["text"], config.priors
    network = _format(formats.precision)
    adapted = network if formats.lora_precision == "auto" else _format(formats.lora_precision)
    adapter = adapter_bytes(_source(config, "text"), text.image_size, adapted, config.texture.lora_rank)
    copied = 0 if adapted == network else text.weights["network"] // network.itemsize * adapted.itemsize
    return CountedPriors({cast(Role, role): each for role, each in found.items()}, adapter, copied)


def _format(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def _source(config: Config, role: str) -> PriorSource:
    setting = getattr(config.priors, role)
    folder = project_file(setting.source)
    return PriorSource(str(folder if folder.is_dir() else setting.source), setting.revision)


def _counted(config: Config, role: str) -> CountedPrior:
    source = _source(config, role)
    if not source.folder_is_there() or not (contents := contents_of_any(source)).parameters:
        return NOTHING
    network, said = _format(config.priors.precision), config.priors.vae_precision
    autoencoder = _autoencoder_format(source, network) if said == "auto" else _format(said)
    size = contents.image_size if role != "text" else config.priors.text.image_size or contents.image_size
    weights, towers = {"network": 0, "autoencoder": 0, "projection": 0}, 0
    for name, number in contents.parameters.items():
        if name in NETWORKS:
            weights["network"] += number * network.itemsize
        elif name == AUTOENCODER:
            weights["autoencoder"] += number * autoencoder.itemsize
        elif name == "cc_projection":
            weights["projection"] += number * OPENED_WHOLE
        else:
            towers += number * (OPENED_AS_STORED if number >= T5_FROM else OPENED_WHOLE)
    return CountedPrior(
        image_size=size,
        weights=weights,
        towers=towers,
        networks=network_bytes(source, size, network, autoencoder),
    )


def _autoencoder_format(source: PriorSource, network: torch.dtype) -> torch.dtype:
    config = json_object(source.component(AUTOENCODER) / "config.json")
    return torch.float32 if network == torch.float16 and overflows(config) else network
