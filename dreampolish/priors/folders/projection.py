"""The pose projection of Zero123's folders: which layer and tensors it holds, and whether they fit what stands beside it.

Its one layer is called `linear` here, `proj` in stable-dreamfusion's conversion and `projection` by the Zero123 authors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dreampolish.priors.folders.architectures import DIFFUSERS_BASE, Shapes, refuse_other_tensors
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.folders.weights import Tensors, tensors_of

LAYERS = ("linear", "proj", "projection")
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
