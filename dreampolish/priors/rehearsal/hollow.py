"""Weight files whose tensors are holes: right names, shapes and formats, all zeros, and next to nothing on the disk."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
"""safetensors' name of a number format."""


def write_hollow(path: Path, network: nn.Module) -> None:
    """A safetensors file for a network, on `meta` or not, that a file system with sparse files keeps without its zeros."""
    write_hollow_tensors(path, {name: value for name, value in network.state_dict().items() if value.is_floating_point()})


def write_hollow_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The same for tensors by name, of which shapes and formats count (source: the format's description, 8 bytes of length, a header)."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
