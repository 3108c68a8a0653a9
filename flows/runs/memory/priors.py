"""What a run's priors take: weights and, for each picture, what their networks keep."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from dreampolish.priors.estimators.yoso import is_one_step
from dreampolish.priors.folders.contents import Role
from dreampolish.priors.folders.source import PriorSource, json_object
from dreampolish.priors.latents import overflows
from dreampolish.priors.multiview.loading import contents_of_any
from dreampolish.priors.rehearsal.counting import AdapterBytes, NetworkBytes, adapter_bytes, network_bytes
from dreampolish.priors.rehearsal.estimators import depth_bytes, one_step_bytes, scorer_bytes
from dreampolish.priors.rehearsal.sets import set_bytes
from schemas.config.run import Config, LocalSource
from stages.runtime.files import project_file

GIB = 2**30
ROLES: tuple[Role, ...] = ("text", "view", "views", "normals")
NETWORKS, AUTOENCODER = ("unet", "transformer", "controlnet"), "vae"
PICTURE_TOWERS = ("vision_encoder", "image_encoder")
"""Of priors that paint sets: they stay on the card, in the network's format."""
READ_ONCE = "Zero123++"
"""The family whose text tower is gone when it has read the empty prompt."""
OPENED_WHOLE, OPENED_AS_STORED = 4, 2
"""Bytes of a number of a CLIP or BERT tower, which is opened as float32, and of T5, which is opened as it is stored, in halves."""
T5_FROM = 10**9
"""Parameters of a tower from which it is taken for a T5: CLIP's largest text tower has 0.7e9."""


@dataclass(frozen=True)
class CountedPrior:
    """A prior and its bytes: score network, autoencoder and projection always; towers while they read. on_cpu: of one that runs outside of
    torch, on the CPU."""

    image_size: int
    weights: Mapping[str, int]
    towers: int
    networks: NetworkBytes
    on_cpu: int = 0


NOTHING = CountedPrior(
    image_size=0, weights={"network": 0, "autoencoder": 0, "projection": 0}, towers=0, networks=NetworkBytes(0, 0, 0, 0)
)
"""A prior that a run does not open."""


@dataclass(frozen=True)
class CountedPriors:
    """All priors of a run, by role, and the LoRA on the text prior with the copy of the network that it may need. beside: bytes of the
    depth prior and of the CLIP that chooses the reference, where they are named. matting: of a network on the CPU, or 0."""

    by_role: Mapping[Role, CountedPrior]
    adapter: AdapterBytes
    adapter_copy: int
    beside: Mapping[str, int]
    matting: int


def counted_priors(config: Config) -> CountedPriors:
    """Count them from configs and headers; seconds for the networks of Stable Diffusion. PriorError where one cannot be opened."""
    found = {role: _counted(config, role) for role in ROLES}
    text, formats = found["text"], config.priors
    network = _format(formats.precision)
    adapted = network if formats.lora_precision == "auto" else _format(formats.lora_precision)
    adapter = adapter_bytes(_source(config, "text"), text.image_size, adapted, config.texture.lora_rank)
    copied = 0 if adapted == network else text.weights["network"] // network.itemsize * adapted.itemsize
    return CountedPriors(found, adapter, copied, beside=_beside(config), matting=_on_cpu(config.priors.matting))


def _beside(config: Config) -> dict[str, int]:
    """What the reference stage opens beside the text and normal priors."""
    found = {}
    if config.priors.depth is not None:
        found["depth"] = depth_bytes(_source(config, "depth"))
    if config.priors.clip is not None and config.reference.uses_clip:
        found["CLIP"] = scorer_bytes(_source(config, "clip"))
    return found


def _on_cpu(setting: LocalSource | None) -> int:
    """Bytes of a network in an ONNX file, which onnxruntime runs on the CPU."""
    path = None if setting is None else project_file(setting.source) / "model.onnx"
    return 0 if path is None or not path.is_file() else path.stat().st_size


def _format(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, name)
    return found


def _source(config: Config, role: str) -> PriorSource:
    setting = getattr(config.priors, role)
    folder = project_file(setting.source)
    return PriorSource(str(folder if folder.is_dir() else setting.source), setting.revision)


def _counted(config: Config, role: Role) -> CountedPrior:
    if getattr(config.priors, role) is None:
        return NOTHING
    source = _source(config, role)
    if not source.folder_is_there():
        return NOTHING
    contents = contents_of_any(source)
    if not contents.parameters:
        return replace(NOTHING, on_cpu=contents.stored_bytes)
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
        elif role == "views":
            weights["projection"] += _stays(name, contents.family, number, network)
        else:
            towers += number * (OPENED_AS_STORED if number >= T5_FROM else OPENED_WHOLE)
    return CountedPrior(
        image_size=size,
        weights=weights,
        towers=towers,
        networks=_networks(role, source, size, network, autoencoder=autoencoder),
    )


def _networks(role: Role, source: PriorSource, size: int, network: torch.dtype, *, autoencoder: torch.dtype) -> NetworkBytes:
    if role == "views":
        return set_bytes(source, network, autoencoder)
    if role == "normals" and is_one_step(source):
        return one_step_bytes(source, network, autoencoder)
    return network_bytes(source, size, network, autoencoder)


def _stays(tower: str, family: str, number: int, network: torch.dtype) -> int:
    """Bytes of a tower of a prior that paints sets, which stays on the card."""
    if tower in PICTURE_TOWERS:
        return number * network.itemsize
    return 0 if family == READ_ONCE else number * OPENED_WHOLE


def _autoencoder_format(source: PriorSource, network: torch.dtype) -> torch.dtype:
    config = json_object(source.component(AUTOENCODER) / "config.json")
    return torch.float32 if network == torch.float16 and overflows(config) else network
