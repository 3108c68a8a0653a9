"""Several pictures of one object at one scale: their boxes tell the object's width, depth and height, and so each picture's scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT
from dreampolish.scene.cutout import LARGEST_SHARE, OBJECT_RADIUS, resampled

ROUNDS = 8
"""Rounds in which scales and the object's box are found in turn; the changes halve in each. [choice]"""
GUESSED_DEPTH = 0.1
"""Weight of the guess that a hidden side is as long as the front's shorter one, beside a picture that shows it. [choice]"""


@dataclass(frozen=True)
class Window:
    """The square of a picture, in its own pixels, that becomes the canonical frame: its centre (column, row) and side."""

    center: tuple[float, float]
    side: float

    def of(self, rgba: Float[Tensor, "h w 4"], size: int) -> Float[Tensor, "size size 4"]:
        """What it shows of an RGBA picture, at `size` pixels."""
        return resampled(rgba, self.center, self.side, size)

    def moved(self, scale: float, shift: tuple[float, float]) -> "Window":
        """The window under which the picture is `scale` times as large and then lies by `shift` (right, down) further, in sides."""
        side = self.side / scale
        return Window((self.center[0] - shift[0] * side, self.center[1] - shift[1] * side), side)


def common_windows(
    boxes: Sequence[tuple[float, float, float, float]], azimuth_deg: Sequence[float], elevation_deg: Sequence[float]
) -> list[Window]:
    """Windows around boxes (left, top, right, bottom; each in its own picture's pixels), so that one object has one scale in all.

    The first picture is the front. The object is taken for a box: from elevation e, its height h, and its extents across (a) and along
    (b) the line of sight, make pictures a wide and h cos e + b sin |e| high. All heights then agree, as they must at elevation 0. What
    no picture shows is as long as the front's shorter side, as `scale_of_box` has it for one picture.
    """
    wide = np.array([right - left for left, _, right, _ in boxes])
    high = np.array([bottom - top for _, top, _, bottom in boxes])
    turn, rise = np.radians(azimuth_deg), np.radians(elevation_deg)
    across, along = np.abs(np.sin(turn)), np.abs(np.cos(turn))
    depth, width, height = min(wide[0], high[0]), wide[0], high[0]
    scales = np.ones(len(boxes))
    for _ in range(ROUNDS):
        shown = height * np.cos(rise) + (depth * along + width * across) * np.sin(np.abs(rise))
        scales = high / shown * (shown[0] / high[0])
        rows = np.stack([across, along], axis=1)
        guess = GUESSED_DEPTH * np.array([[1.0, 0.0]])
        wanted = np.append(wide / scales, GUESSED_DEPTH * min(width, height))
        depth, width = nnls(np.concatenate([rows, guess]), wanted)[0]
        height = max((high[0] - (depth * along[0] + width * across[0]) * np.sin(abs(rise[0]))) / np.cos(rise[0]), 0.1 * high[0])
    half_diagonal = 0.5 * float(np.sqrt(depth**2 + width**2 + height**2))
    longest = float((np.maximum(wide, high) / scales).max())
    unit = min(OBJECT_RADIUS / half_diagonal, LARGEST_SHARE * 2 * FRAMING_HALF_HEIGHT / longest)
    side = 2 * FRAMING_HALF_HEIGHT / unit
    return [
        Window(((left + right) / 2, (top + bottom) / 2), side * float(scale))
        for (left, top, right, bottom), scale in zip(boxes, scales, strict=True)
    ]


def box_of(alpha: Float[Tensor, "h w"]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom (exclusive) of what is more than half covered, pixels."""
    rows, columns = (torch.nonzero((alpha > 0.5).any(dim=dim)).flatten() for dim in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def laid_over(picture: Float[Tensor, "h w 4"], alpha: Float[Tensor, "h w"]) -> Float[Tensor, "h w 4"]:
    """A picture moved and stretched so that its object's box becomes that of a mask of the same size."""
    size = picture.shape[0]
    from_box, to_box = box_of(picture[..., 3]), box_of(alpha)
    steps = torch.arange(size) + 0.5
    axes = []
    for axis in (0, 1):
        low_high, wanted = from_box[axis::2], to_box[axis::2]
        place = (steps - wanted[0]) / (wanted[1] - wanted[0]) * (low_high[1] - low_high[0]) + low_high[0]
        axes.append(place / size * 2 - 1)
    grid = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="xy"), dim=-1)[None]
    premultiplied = torch.cat([picture[..., :3] * picture[..., 3:], picture[..., 3:]], dim=-1).permute(2, 0, 1)[None]
    moved = torch.nn.functional.grid_sample(premultiplied, grid, padding_mode="zeros", align_corners=False)[0].permute(1, 2, 0)
    share = moved[..., 3:].clamp(0, 1)
    color = torch.where(share > 1e-3, moved[..., :3] / share.clamp_min(1e-3), torch.ones(()))
    return torch.cat([color.clamp(0, 1), share], dim=-1)
