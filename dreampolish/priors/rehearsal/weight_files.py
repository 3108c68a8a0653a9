"""Weight files for networks that have none: right names and shapes, and holes or random numbers for content.

Holes are zeros that a file system with sparse files does not store: enough to read headers. Random numbers are one block over and over,
normal with a deviation of 0.02: enough to compute at a real network's speed.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

Content = Literal["holes", "random"]
HALF = 2
"""Bytes of a number: everything is stored in float16."""
DEVIATION, BLOCK_NUMBERS = 0.02, 2**23


def write_weights(path: Path, network: nn.Module, content: Content) -> None:
    """A safetensors file for a network, on `meta` or not."""
    tensors = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    write_tensors(path, tensors, content)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], content: Content) -> None:
    """The same for tensors by name, of which the shapes count (source: the format's description: 8 bytes of length, a JSON header)."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        begin, end = end, end + value.numel() * HALF
        header[name] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if content == "holes":
            file.truncate(8 + len(text) + end)
            return
        generator = torch.Generator().manual_seed(0)
        numbers = torch.randn(BLOCK_NUMBERS, generator=generator, device="cpu") * DEVIATION
        block = numbers.half().numpy().tobytes()
        for begin in range(0, end, len(block)):
            file.write(block[: end - begin])
