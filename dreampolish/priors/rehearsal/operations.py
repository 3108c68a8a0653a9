"""Floating point operations of a prior's networks, counted on `meta`: multiplications and additions of matrices, convolutions and
attention, which are all but a percent of the work."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dreampolish.priors.folders.contents import contents_of
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.rehearsal.on_meta import META, Outline, outline_of


@dataclass(frozen=True)
class NetworkFlop:
    """Operations of one picture. encode: there alone; guided: there and back to the picture; decode: to a picture; row: one call of the
    score network for one picture and text."""

    encode: int
    guided: int
    decode: int
    row: int


@cache
def network_flop(source: PriorSource, image_size: int) -> NetworkFlop:
    """Of a prior that works at image_size. PriorError where it cannot be opened."""
    outline = outline_of(source, contents_of(source), image_size)
    autoencoder, size = outline.autoencoder, outline.image_size
    latents = torch.empty(1, int(autoencoder.config.latent_channels), outline.side, outline.side, device=META)

    def encoded(*, with_graph: bool) -> Tensor:
        picture = torch.empty(1, 3, size, size, device=META, requires_grad=with_graph)
        found: Tensor = autoencoder.encode(picture).latent_dist.mode()
        return found

    with torch.no_grad():
        encode, decode = _flop(lambda: encoded(with_graph=False)), _flop(lambda: autoencoder.decode(latents))
        row = _flop(lambda: outline.predict(1))
    with torch.enable_grad():
        guided = _flop(lambda: encoded(with_graph=True).sum().backward())
    return NetworkFlop(encode=encode, guided=guided, decode=decode, row=row)


@cache
def adapter_flop(source: PriorSource, image_size: int, rank: int) -> int:
    """Of one picture from which a LoRA on a text prior's network learns: there and back."""
    outline: Outline = outline_of(source, contents_of(source), image_size)
    module = outline.network.module
    with META:
        module.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(outline.network.adapted)))
    with torch.enable_grad():
        return _flop(lambda: outline.predict(1).sum().backward())


def _flop(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
