"""Bytes that a prior's networks take for each picture, counted on `meta` (LiveBytes).

Everything counted grows with the number of pictures alone: weights are frozen. What the adapter takes once stands apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from peft import LoraConfig

from dreampolish.optim.live_bytes import LiveBytes
from dreampolish.priors.folders.contents import contents_of
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.latents import can_compute_again
from dreampolish.priors.rehearsal.on_meta import META, Outline, fused_attention, outline_of

ADAM_BYTES = 16
"""Of a trained number: itself, its gradient and AdamW's two means, float32."""


@dataclass(frozen=True)
class NetworkBytes:
    """Bytes of one row, which is one picture unless `together` says more; peaks over forward and, where there is one, backward.

    encode: with a graph, on the way back to the picture. encode_again: the same with checkpoints. decode, row: without a graph; row is
    one call of the score network for one picture and text. together: pictures of a row, where they are painted in sets. rows: the only
    number of rows that the prior paints; None: any.
    """

    encode: int
    encode_again: int
    decode: int
    row: int
    together: int = 1
    rows: int | None = None


@dataclass(frozen=True)
class AdapterBytes:
    """Of a LoRA that learns: bytes of a picture with a graph, with checkpoints, and bytes that are there once."""

    picture: int
    picture_again: int
    once: int


@cache
def network_bytes(source: PriorSource, image_size: int, network: torch.dtype, autoencoder: torch.dtype) -> NetworkBytes:
    """Of a prior that works at image_size, computing in the formats given. PriorError where it cannot be opened."""
    outline = outline_of(source, contents_of(source), image_size)
    outline.network.module.to(network)
    outline.autoencoder.to(autoencoder)
    encode = _encoded(outline)
    if can_compute_again(outline.autoencoder):
        outline.autoencoder.enable_gradient_checkpointing()
    channels = int(outline.autoencoder.config.latent_channels)
    latents = torch.empty(1, channels, outline.side, outline.side, dtype=autoencoder, device=META)
    return NetworkBytes(
        encode=encode,
        encode_again=_encoded(outline),
        decode=without_graph(outline.autoencoder, lambda: outline.autoencoder.decode(latents)),
        row=without_graph(outline.network.module, lambda: outline.predict(1)),
    )


@cache
def adapter_bytes(source: PriorSource, image_size: int, network: torch.dtype, rank: int) -> AdapterBytes:
    """Of a LoRA of a rank on a text prior's network in a number format."""
    outline = outline_of(source, contents_of(source), image_size)
    module = outline.network.module.to(network)
    with META:
        module.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(outline.network.adapted)))
    trained = [each for each in module.parameters() if each.requires_grad]
    for each in trained:
        each.data = each.data.float()
    found = []
    for again in (False, True):
        if again:
            module.enable_gradient_checkpointing()
        found.append(_learned(outline) - 4 * sum(each.numel() for each in trained))
    return AdapterBytes(found[0], found[1], ADAM_BYTES * sum(each.numel() for each in trained))


def _encoded(outline: Outline) -> int:
    autoencoder = outline.autoencoder
    picture = torch.empty(
        1, 3, outline.image_size, outline.image_size, dtype=autoencoder.dtype, device=META, requires_grad=True
    )
    with torch.enable_grad(), fused_attention(), LiveBytes([*autoencoder.parameters(), *autoencoder.buffers()]) as live:
        autoencoder.encode(picture).latent_dist.mode().float().sum().backward()
    return live.peak


def _learned(outline: Outline) -> int:
    module = outline.network.module
    with torch.enable_grad(), fused_attention(), LiveBytes([*module.parameters(), *module.buffers()]) as live:
        outline.predict(1).float().square().sum().backward()
    for each in module.parameters():
        each.grad = None
    return live.peak


def without_graph(module: Any, call: Callable[[], Any]) -> int:
    """Bytes at the peak of a call of a network that keeps no graph."""
    with torch.no_grad(), fused_attention(), LiveBytes([*module.parameters(), *module.buffers()]) as live:
        call()
    return live.peak
