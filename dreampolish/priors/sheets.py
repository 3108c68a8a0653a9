"""Sample sheets: many pictures in one, for eyes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


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
