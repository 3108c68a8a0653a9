"""The weight files of one component: which variant is taken, and what its headers say. No tensor is read.

Weights are read from safetensors only. A component's files are named as diffusers and transformers name them: a base ("model" or
"diffusion_pytorch_model"), perhaps a variant ("fp16"), one file or shards listed by an index.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dreampolish.priors.folders.source import PriorError, json_object

VARIANTS = (None, "fp16", "bf16")
"""In the order in which they are taken: nothing is gained from halves beside whole numbers, since all are opened as float32."""

_POINTER = b"version https://git-lfs"
_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of a number by safetensors' name of its kind; the others have one."""


@dataclass(frozen=True)
class Tensors:
    """Names, shapes and kinds of a component's tensors, and the files they lie in."""

    files: tuple[Path, ...]
    variant: str | None
    shapes: Mapping[str, tuple[int, ...]]
    kinds: frozenset[str]
    stored_bytes: int

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def tensors_of(folder: Path, base: str) -> Tensors:
    """Headers of a component's weights. PriorError in one line where they are missing, pickled, truncated or pointers of Git LFS."""
    for variant in VARIANTS:
        files = _files(folder, base, variant)
        if files:
            return _with_headers(files, variant)
    raise PriorError(_why_none(folder, base))


def _files(folder: Path, base: str, variant: str | None) -> tuple[Path, ...]:
    middle = "" if variant is None else f".{variant}"
    index = folder / f"{base}.safetensors.index{middle}.json"
    if (folder / f"{base}{middle}.safetensors").is_file():
        return (folder / f"{base}{middle}.safetensors",)
    if not index.is_file():
        return ()
    shards = sorted(set(json_object(index).get("weight_map", {}).values()))
    if not shards:
        raise PriorError(f"{index} lists no files: it is damaged, fetch it again")
    return tuple(folder / str(name) for name in shards)


def _why_none(folder: Path, base: str) -> str:
    pickled = sorted(path.name for ending in ("*.bin", "*.ckpt", "*.pt", "*.pth") for path in folder.glob(ending))
    if pickled:
        return (
            f"{folder} holds {pickled[0]} but no {base}.safetensors: only safetensors are read; "
            "`dreampolish priors convert FOLDER OUT` makes them, once"
        )
    return f"{folder} holds no {base}.safetensors: only safetensors are read, convert or restore the weights"


def _with_headers(files: tuple[Path, ...], variant: str | None) -> Tensors:
    shapes: dict[str, tuple[int, ...]] = {}
    kinds, stored = set(), 0
    for path in files:
        _refuse_pointer(path)
        try:
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    part = opened.get_slice(name)
                    shapes[name] = tuple(part.get_shape())
                    kinds.add(str(part.get_dtype()))
                    stored += math.prod(shapes[name]) * _BYTES.get(str(part.get_dtype()), 1)
        except (SafetensorError, OSError) as error:
            why = str(error).splitlines()[0].removeprefix("Error while deserializing header: ")
            raise PriorError(f"{path} is damaged or was not copied to its end ({why}): fetch it again") from None
    return Tensors(files=files, variant=variant, shapes=shapes, kinds=frozenset(kinds), stored_bytes=stored)


def _refuse_pointer(path: Path) -> None:
    """PriorError for what stands in a weight's place where it was not downloaded."""
    if not path.is_file():
        raise PriorError(f"{path.parent} lacks {path.name}, which its index lists: fetch it again")
    with path.open("rb") as opened:
        head = opened.read(len(_POINTER))
    if head == _POINTER or not head:
        what = "is empty" if not head else "is a pointer of Git LFS, not the weights"
        raise PriorError(
            f"{path} {what}: accept the model's licence on its page if it asks for that, then `git lfs pull` or fetch it again"
        )
