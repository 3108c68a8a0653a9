"""Which tensors a component must hold, by its config: the network is laid out without memory, and names and shapes are compared. Of the
pose projection of Zero123's folders also whether it fits what stands beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from dreampolish.priors.autoencoder import PatchAutoencoder
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.folders.weights import Tensors, tensors_of

DIFFUSERS_BASE, TRANSFORMERS_BASE = "diffusion_pytorch_model", "model"

Shapes = Mapping[str, tuple[int, ...]]

_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What diffusers called the layers of an autoencoder's attention before version 0.15; it still reads these names."""
_NO_WEIGHTS = re.compile(r"(^|\.)(position_ids|num_batches_tracked)$")
_SEVERAL = 3
"""Tensors that a message names."""


def named_class(config: Mapping[str, Any], path: Path, known: tuple[str, ...]) -> Any:
    """The diffusers class that a config names; without a name the first of the known ones. PriorError for any other."""
    name = str(config.get("_class_name", known[0]))
    if name not in known:
        raise PriorError(f"{path} names the class {name}: only {', '.join(known)} can be opened here")
    return PatchAutoencoder if name == "PatchAutoencoder" else getattr(diffusers, name)


def checked_diffusers(folder: Path, known: tuple[str, ...]) -> tuple[Any, dict[str, Any], Tensors]:
    """(class, config, headers) of a diffusers component. PriorError where a tensor is missing, unexpected or of another shape."""
    config = json_object(folder / "config.json")
    kind = named_class(config, folder / "config.json", known)
    found = tensors_of(folder, DIFFUSERS_BASE)
    with torch.device("meta"):
        expected = _laid_out(lambda: kind.from_config(config), folder)
    refuse_other_tensors(folder, expected, {_modern(name): shape for name, shape in found.shapes.items()})
    return kind, config, found


def checked_transformers(folder: Path, family: Any = None) -> tuple[Any, Any, Tensors]:
    """(class, config, headers) of a transformers component: the class that its config names, else the base model of its type; or what
    `family`, an Auto class, makes of it: then only the headers are read, for transformers renames many a network's tensors as it loads."""
    json_object(folder / "config.json")
    found = tensors_of(folder, TRANSFORMERS_BASE)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise PriorError(f"{folder}/config.json cannot be read: {str(error).splitlines()[0]}") from None
    if family is not None:
        return family, config, found
    name = (getattr(config, "architectures", None) or [""])[0]
    kind: Any = getattr(transformers, name, None) if name in NAMED_ENCODERS else transformers.AutoModel
    with torch.device("meta"):
        make = getattr(kind, "from_config", kind)
        network = _built(lambda: make(config), folder)
    expected = _shapes(network)
    known = {_without_prefix(name, expected): shape for name, shape in found.shapes.items()}
    refuse_other_tensors(folder, _once_each(network, known), known)
    return kind, config, found


NAMED_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection", "T5EncoderModel")
"""Classes that are opened as their config names them; any other encoder is opened as its type's base model."""


def _laid_out(build: Any, folder: Path) -> Shapes:
    return _shapes(_built(build, folder))


def _built(build: Any, folder: Path) -> nn.Module:
    try:
        network: nn.Module = build()
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PriorError(f"{folder}/config.json describes no network: {said}") from None
    return network


def _shapes(network: nn.Module) -> Shapes:
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {name: shape for name, shape in found.items() if not _NO_WEIGHTS.search(name)}


def _once_each(network: nn.Module, found: Shapes) -> Shapes:
    """The expected shapes without names that share their parameter with one that was found."""
    state = network.state_dict(keep_vars=True)
    there = {id(state[name]) for name in found if name in state}
    return {name: shape for name, shape in _shapes(network).items() if name in found or id(state[name]) not in there}


def _modern(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts and len(parts) > 1 and parts[-2] in _OLD_ATTENTION:
        parts[-2] = _OLD_ATTENTION[parts[-2]]
    return ".".join(parts)


def _without_prefix(name: str, expected: Shapes) -> str:
    """A name as the network has it: with or without the prefix that other versions and classes of transformers put before it."""
    shorter = name.partition(".")[2]
    if name in expected or not shorter:
        return name
    return shorter if shorter in expected or _NO_WEIGHTS.search(shorter) else name


def refuse_other_tensors(folder: Path, expected: Shapes, found: Shapes) -> None:
    """PriorError, by name, where a tensor is missing, unexpected or of another shape than its config says."""
    known = {name: shape for name, shape in found.items() if not _NO_WEIGHTS.search(name)}
    missing = sorted(set(expected) - set(known))
    unexpected = sorted(set(known) - set(expected))
    other = sorted(name for name in set(expected) & set(known) if expected[name] != known[name])
    told = []
    if missing:
        told.append(f"lacks {_listed(missing)}")
    if unexpected:
        told.append(f"holds {_listed(unexpected)}, which its config does not know")
    if other:
        first = other[0]
        told.append(f"has {_listed(other)} in another shape: {list(known[first])}, not {list(expected[first])}")
    if told:
        raise PriorError(f"{folder} {'; '.join(told)}: these are other weights than its config says, fetch it again")


def _listed(names: list[str]) -> str:
    more = len(names) - _SEVERAL
    return ", ".join(names[:_SEVERAL]) + (f" and {more} more" if more > 0 else "")


LAYERS = ("linear", "proj", "projection")
"""What the one layer of Zero123's pose projection is called: here, in stable-dreamfusion's conversion, by the Zero123 authors."""
OWN = LAYERS[0]
POSE_NUMBERS = 4


@dataclass(frozen=True)
class CheckedProjection:
    """A projection whose tensors are right. layer: its name in the file. context_dim, output_dim: numbers of a token before the pose joins
    it, and behind."""

    layer: str
    context_dim: int
    output_dim: int
    tensors: Tensors


def checked_projection(source: PriorSource) -> CheckedProjection:
    """A folder's `cc_projection` under any of its names. PriorError, by name, where it holds other tensors than one linear layer."""
    folder = source.component("cc_projection")
    config, found = json_object(folder / "config.json"), tensors_of(folder, DIFFUSERS_BASE)
    layer = next((name for name in LAYERS if f"{name}.weight" in found.shapes), _meant(found.shapes))
    weight = found.shapes.get(f"{layer}.weight")
    if weight is not None and (len(weight) != 2 or weight[1] <= POSE_NUMBERS):
        raise PriorError(f"{folder} has {layer}.weight of the shape {list(weight)}: the pose projection is one linear layer")
    if layer == OWN:
        width, given = int(config.get("output_dim", 768)), int(config.get("context_dim", 768))
        expected = {f"{layer}.weight": (width, given + POSE_NUMBERS), f"{layer}.bias": (width,)}
        expected["offsets"] = (max(int(config.get("tokens", 0)), 1), width)
    else:
        width, given = (0, 0) if weight is None else (weight[0], weight[1] - POSE_NUMBERS)
        expected = {f"{layer}.weight": (width, given + POSE_NUMBERS), f"{layer}.bias": (width,)}
    refuse_other_tensors(folder, expected, found.shapes)
    return CheckedProjection(layer, given, width, found)


def _meant(shapes: Shapes) -> str:
    """The layer that a file without a weight under any known name comes nearest to."""
    return next((name for name in LAYERS if any(each.split(".")[0] == name for each in shapes)), OWN)


def refuse_other_width(source: PriorSource, projection: CheckedProjection, unet: Mapping[str, Any]) -> None:
    """PriorError where the U-Net attends to another number of numbers than the projection gives."""
    attended = unet.get("cross_attention_dim")
    if attended != projection.output_dim:
        raise PriorError(
            f"the U-Net of {source.location} attends to {attended} numbers, but its pose projection gives "
            f"{projection.output_dim}: they belong to different models"
        )


def refuse_other_tower(source: PriorSource, projection: CheckedProjection, tower: Any) -> None:
    """PriorError where the picture tower gives another number of numbers than the projection takes. tower: its config."""
    folder = source.component("image_encoder")
    given = getattr(tower, "projection_dim", None)
    if given != projection.context_dim:
        raise PriorError(
            f"{folder} gives {given} numbers a picture, but the pose projection takes {projection.context_dim}: they belong to "
            "different models"
        )
