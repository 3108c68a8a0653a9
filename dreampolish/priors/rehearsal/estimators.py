"""Bytes of networks that look at one picture without a graph: depth estimators, the CLIP that judges, normal networks of one step."""

from typing import Any

import torch
import transformers
from torch import nn

from dreampolish.optim.live_bytes import LiveBytes
from dreampolish.priors.estimators.depth import USUAL_SIDE
from dreampolish.priors.estimators.yoso import (
    NO_SCHEDULE,
    ZERO_TOKENS,
    OneStepNormalPrior,
    checked_control,
    laid_out_control,
    side_of,
)
from dreampolish.priors.folders.architectures import TRANSFORMERS_BASE, checked_diffusers, checked_transformers
from dreampolish.priors.folders.contents import AUTOENCODERS, UNETS
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.folders.weights import tensors_of
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.rehearsal.counting import NetworkBytes, without_graph
from dreampolish.priors.rehearsal.on_meta import META, fused_attention

FLOAT32 = 4
"""Bytes of a number: both are opened whole."""


def depth_bytes(source: PriorSource) -> int:
    """Weights of a depth estimator, and the peak of looking at one picture, rather too much than too little; of one that cannot be laid out
    on `meta` the weights twice."""
    _, config, found = checked_transformers(source.folder(), transformers.AutoModelForDepthEstimation)
    weights = found.n_parameters * FLOAT32
    side = int(getattr(getattr(config, "backbone_config", None) or config, "image_size", None) or USUAL_SIDE)
    try:
        with META:
            network: Any = transformers.AutoModelForDepthEstimation.from_config(config).eval()
            picture = torch.empty(1, 3, side, side)
        with torch.no_grad(), fused_attention(), LiveBytes([*network.parameters(), *network.buffers()]) as live:
            network(pixel_values=picture)
    except (RuntimeError, NotImplementedError, TypeError):
        return 2 * weights
    return weights + live.peak


def scorer_bytes(source: PriorSource) -> int:
    """Weights of a CLIP; pictures of 224 pixels take little beside them."""
    return tensors_of(source.folder(), TRANSFORMERS_BASE).n_parameters * FLOAT32


def one_step_bytes(source: PriorSource, network: torch.dtype, autoencoder: torch.dtype) -> NetworkBytes:
    """Of StableNormal's one-step part, computing in the formats given. PriorError where it cannot be opened."""
    side = side_of(source)
    with META:
        unet, vae = (
            kind.from_config(config).eval().requires_grad_(requires_grad=False)
            for kind, config, _ in (
                checked_diffusers(source.component("unet"), UNETS),
                checked_diffusers(source.component("vae"), AUTOENCODERS),
            )
        )
        control = laid_out_control(checked_control(source)[0], source.component("controlnet"))
        prior = OneStepNormalPrior(
            space=LatentSpace(vae.to(autoencoder), NO_SCHEDULE, side),
            unet=unet.to(network),
            control=control.to(network),
            context=torch.empty(1, ZERO_TOKENS, int(unet.config.cross_attention_dim)),
            axes="right up viewer",
            from_picture=True,
        )
        latents, picture = torch.empty(1, *prior.latent_shape), torch.empty(1, 3, side, side, dtype=autoencoder)
        row = without_graph(nn.ModuleList([unet, control]), lambda: prior.output(latents, latents))
        encode = without_graph(vae, lambda: vae.encode(picture).latent_dist.mode())
        decode = without_graph(vae, lambda: vae.decode(latents.to(autoencoder)))
    return NetworkBytes(encode=encode, encode_again=encode, decode=decode, row=row)
