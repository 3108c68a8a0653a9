"""Bytes of a prior that paints sets of views, counted on `meta` by the prior's own methods: one row is one set."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from dreampolish.priors.folders.architectures import checked_diffusers
from dreampolish.priors.folders.contents import AUTOENCODERS, UNETS
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.latents import LatentSpace, pixels_per_latent
from dreampolish.priors.multiview.imagedream import TOGETHER
from dreampolish.priors.multiview.imagedream_network import MultiviewUnet
from dreampolish.priors.multiview.zero123plus import COLUMNS, ROWS, Zero123PlusPrior, load_picture_input
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.rehearsal.counting import NetworkBytes, without_graph
from dreampolish.priors.rehearsal.on_meta import CLIP_TOKENS, META
from dreampolish.priors.sampling import NoiseSchedule


@cache
def set_bytes(source: PriorSource, network: torch.dtype, autoencoder: torch.dtype) -> NetworkBytes:
    """Of a prior that paints sets, computing in the formats given; nothing of it keeps a graph. PriorError where it cannot be opened."""
    name = str(source.index().get("_class_name", ""))
    with META:
        kind, config, _ = checked_diffusers(source.component("vae"), AUTOENCODERS)
        vae = kind.from_config(config).eval().requires_grad_(False).to(autoencoder)
    match name:
        case "Zero123PlusPipeline":
            return _of_sheets(source, vae, network)
        case "MVDreamPipeline":
            return _of_joint_views(source, vae, network)
    raise PriorError(f"{source.location} is {name or 'a folder without model_index.json'}, whose sets cannot be counted")


def _of_sheets(source: PriorSource, vae: Any, dtype: torch.dtype) -> NetworkBytes:
    """Six views on one sheet, always; both domains, each beside the reference picture, in one call."""
    inputs = load_picture_input(source, "feature_extractor_vae")
    with META:
        kind, config, _ = checked_diffusers(source.component("unet"), UNETS)
        unet = kind.from_config(config).eval().requires_grad_(False).to(dtype)
        words = torch.empty(1, CLIP_TOKENS, int(unet.config.cross_attention_dim))
        prior = Zero123PlusPrior(
            space=_space(vae, inputs.size),
            unet=unet,
            tower=None,
            words=TextEmbedding(words, torch.ones(1, CLIP_TOKENS, dtype=torch.bool)),
            ramp=torch.empty(CLIP_TOKENS),
            inputs=(inputs, inputs),
            elevations_deg=(0.0, 0.0),
        )
        sheet = torch.empty(1, 3, ROWS * inputs.size, COLUMNS * inputs.size, dtype=vae.dtype)
        channels, pixels = int(vae.config.latent_channels), pixels_per_latent(vae)
        side = inputs.size // pixels
        noisy, beside = torch.empty(2, channels, ROWS * side, COLUMNS * side), torch.empty(2, channels, side, side)
        timesteps = torch.zeros(2, dtype=torch.int64)
        row = without_graph(unet, lambda: prior.output(noisy, timesteps, beside, beside, contexts=words.expand(2, -1, -1)))
    return _counted(vae, row=row, pictures=sheet, together=ROWS * COLUMNS, rows=1)


def _of_joint_views(source: PriorSource, vae: Any, dtype: torch.dtype) -> NetworkBytes:
    """Four views and the reference picture's."""
    config = json_object(source.component("unet") / "config.json")
    tower = json_object(source.component("image_encoder") / "config.json")
    width = int(tower["hidden_size"])
    tokens = (int(tower["image_size"]) // int(tower["patch_size"])) ** 2 + 1
    with META:
        network = MultiviewUnet(config, width).eval().requires_grad_(False).to(dtype)
        side, n = int(network.unet.config.sample_size), TOGETHER + 1
        size = side * pixels_per_latent(vae)
        given = {
            "noisy": torch.empty(n, int(vae.config.latent_channels), side, side),
            "timesteps": torch.zeros(n, dtype=torch.int64),
            "words": torch.empty(n, CLIP_TOKENS, int(network.unet.config.cross_attention_dim)),
            "picture": torch.empty(n, tokens, width),
            "cameras": torch.empty(n, int(config["camera_dim"])),
        }
        row = without_graph(network, lambda: network(**given, n_views=n))
        pictures = torch.empty(TOGETHER, 3, size, size, dtype=vae.dtype)
    return _counted(vae, row=row, pictures=pictures, together=TOGETHER, rows=None)


def _space(vae: Any, size: int) -> LatentSpace:
    return LatentSpace(vae, NoiseSchedule(torch.empty(1000, device=META), "epsilon"), size)


def _counted(vae: Any, row: int, pictures: Tensor, together: int, rows: int | None) -> NetworkBytes:
    factor, channels = pixels_per_latent(vae), int(vae.config.latent_channels)
    n, _, height, width = pictures.shape
    latents = torch.empty(n, channels, height // factor, width // factor, dtype=vae.dtype, device=META)
    encode = without_graph(vae, lambda: vae.encode(pictures).latent_dist.mode())
    return NetworkBytes(
        encode=encode,
        encode_again=encode,
        decode=without_graph(vae, lambda: vae.decode(latents)),
        row=row,
        together=together,
        rows=rows,
    )
