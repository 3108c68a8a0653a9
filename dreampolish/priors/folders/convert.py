"""Pickled weights into our layout, once: a folder with `.bin` files, or one of Zero123's single files.

Pickles are read by torch's reader that takes tensors only. Nothing at run time calls this.
"""

import json
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreampolish.priors.folders.original import components_from_checkpoint, schedule_of_zero123
from dreampolish.priors.folders.source import PriorError, json_object

KEPT = (".json", ".txt", ".model", ".md", ".safetensors", ".onnx")
"""Endings of the files that are copied as they are."""

STABLE = "stable_zero123"
"""In the name of Stable-Zero123's file, whose poses end with the reference's elevation."""


def convert(original: Path, output: Path, pose: Literal["distance_change", "reference_elevation"] | None) -> None:
    """Write a folder that can be opened. pose: the convention of a single file's poses; None: known by the file's name.

    `output` must not exist; it appears when it is whole. PriorError in one line where the original cannot be converted.
    """
    if output.exists():
        raise PriorError(f"{output} exists already: name a new folder, or remove it first")
    if not original.exists():
        raise PriorError(f"there is nothing at {original}: name a folder, or a .ckpt file of Zero123")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".partial-") as partial:
        made = Path(partial) / "made"
        made.mkdir()
        if original.is_dir():
            _convert_folder(original, made)
        else:
            stable = STABLE in original.stem.lower().replace("-", "_")
            _convert_file(original, made, pose or ("reference_elevation" if stable else "distance_change"))
        made.rename(output)


def tensors_in(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle or safetensors file by name. PriorError for a pickle that holds more than tensors and plain values."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PriorError(
            f"{path} is a pickle that holds more than tensors; reading it could run foreign code, so it is refused: "
            "take a file with weights alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PriorError(f"{path} is damaged or no file of weights ({said}): fetch it again") from None
    inner = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    tensors = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        raise PriorError(f"{path} holds no tensors by name: it is no file of weights")
    return tensors


def _convert_file(original: Path, output: Path, pose: str) -> None:
    for name, component in components_from_checkpoint(tensors_in(original), pose).items():
        folder = output / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(dict(component.config), indent=2) + "\n")
        _save(component.state, folder / f"{component.base}.safetensors")
    schedule_of_zero123().save_config(str(output / "scheduler"))
    index: dict[str, Any] = {"_class_name": "Zero123Pipeline", "_name_or_path": original.stem}
    (output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _convert_folder(original: Path, output: Path) -> None:
    """Every component's pickles become one safetensors file; settings, vocabularies and cards are copied."""
    found = False
    for folder in (original, *sorted(path for path in original.rglob("*") if path.is_dir())):
        if any(part.startswith(".") for part in folder.relative_to(original).parts):
            continue
        made = output / folder.relative_to(original)
        made.mkdir(exist_ok=True)
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            if path.suffix in KEPT and not path.name.endswith(".bin.index.json"):
                shutil.copyfile(path, made / path.name)
        for base, files in _pickled(folder).items():
            if not any(made.glob("*.safetensors")):
                _save({name: value for path in files for name, value in tensors_in(path).items()}, made / base)
                found = True
    if not found:
        raise PriorError(
            f"{original} holds no pickled weights of components that lack safetensors: there is nothing to convert"
        )


def _pickled(folder: Path) -> dict[str, list[Path]]:
    """By the name of the file that they become, the pickles of a component; shards come together, whole numbers before halves."""
    names = sorted(path for path in folder.glob("*pytorch_model*.bin") if path.is_file())
    indices = {path: json_object(path) for path in sorted(folder.glob("*.bin.index*.json"))}
    shards = {str(name) for index in indices.values() for name in index.get("weight_map", {}).values()}
    whole = [path for path in names if path.name not in shards]
    if indices:
        first = next(iter(indices))
        listed = sorted({str(name) for name in indices[first].get("weight_map", {}).values()})
        return {_safe_name(first.name.partition(".bin")[0]): [folder / name for name in listed]}
    return {_safe_name(whole[0].stem): [whole[0]]} if whole else {}


def _safe_name(stem: str) -> str:
    """`pytorch_model` is called `model` in safetensors; a variant stays in the name."""
    base, dot, variant = stem.partition(".")
    return f"{'model' if base == 'pytorch_model' else base}{dot}{variant}.safetensors"


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    """Tensors that share memory are written apart: safetensors keeps no sharing."""
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path, metadata={"format": "pt"})
