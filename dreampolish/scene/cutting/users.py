"""A user's picture cut out, whatever it comes as: by its alpha, by a matting model, or from its background."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreampolish.scene.cutout import CutoutSizes, check_foreground, check_whole
from dreampolish.scene.cutting.alpha import cleaned, has_rounded_corners, is_opaque
from dreampolish.scene.cutting.opaque import Cutout, cut_from_background
from dreampolish.scene.pictures import PictureError

Opaque = Callable[[Float[Tensor, "h w 3"], Bool[Tensor, "h w"]], Cutout]
"""Cuts an opaque picture, of which it is said which pixels it shows."""


LEAST_SIDE = 16
"""Pixels of the shorter side of a picture that can be cut. [choice]"""
WORKED_ON, PER_PIXEL = 512, 2
"""Pixels of the longest side to which a larger picture is shrunk before it is cut, and how many of them for one of the reference.
[choice]"""


def from_background(tolerance: float, sizes: CutoutSizes, size: int) -> Opaque:
    """By what the picture's border shows. tolerance: the largest per channel that noise is granted. size: of the reference, pixels;
    pictures that are much larger are shrunk first."""
    most_side = max(WORKED_ON, PER_PIXEL * size)

    def cut(rgb: Tensor, known: Tensor) -> Cutout:
        side = max(rgb.shape[:2])
        if side > most_side:
            size = [max(1, round(length * most_side / side)) for length in rgb.shape[:2]]
            both = torch.cat([rgb, known[..., None].to(rgb)], dim=-1).permute(2, 0, 1)[None]
            small = torch.nn.functional.interpolate(both, size, mode="area")[0].permute(1, 2, 0)
            rgb, known = small[..., :3].contiguous(), small[..., 3] > 0.99
        return cut_from_background(rgb, known, tolerance, sizes)

    return cut


def by_matting(matte: Callable[[Tensor], Tensor]) -> Opaque:
    """By a matting model, which gives RGBA of a picture."""

    def cut(rgb: Tensor, known: Tensor) -> Cutout:
        rgba = matte(rgb)
        return Cutout(torch.cat([rgba[..., :3], (rgba[..., 3] * known)[..., None]], dim=-1), ())

    return cut


def says_nothing(alpha: Float[Tensor, "h w"]) -> bool:
    """Whether a picture's alpha does not tell its object, so that it must be cut."""
    return is_opaque(alpha.numpy()) or has_rounded_corners(alpha.numpy())


def cut_out(rgba: Float[Tensor, "h w 4"], opaque: Opaque) -> Cutout:
    """A user's picture with alpha as its object's coverage, and what was assumed. opaque: cuts one whose alpha says nothing.

    Raises PictureError, in one line, where no object can be told.
    """
    alpha = rgba[..., 3].numpy()
    if min(alpha.shape) < LEAST_SIDE:
        height, width = alpha.shape
        raise PictureError(f"the picture is {width}x{height} pixels, the least is {LEAST_SIDE} a side; give a larger one")
    if is_opaque(alpha):
        said = (
            ()
            if alpha.min() == 1
            else (f"alpha of {alpha.min():.1%} and more was taken for opaque; the background was cut away",)
        )
        cut = opaque(rgba[..., :3], torch.ones(rgba.shape[:2], dtype=torch.bool))
    elif has_rounded_corners(alpha):
        said = ("transparent corners were taken for those of a screenshot; the background was cut away",)
        cut = opaque(rgba[..., :3], rgba[..., 3] == 1)
    else:
        array, notes = cleaned(rgba.numpy())
        cut, said = Cutout(torch.from_numpy(array.astype(np.float32)), tuple(notes)), ()
    if not bool((cut.rgba[..., 3] > 0.5).any()):
        raise PictureError("no object stands out from the background; give a picture of one object on another colour, or RGBA")
    check_foreground(cut.rgba[..., 3])
    return Cutout(cut.rgba, (*said, *cut.notes, *_cut_off(cut.rgba[..., 3])))


def _cut_off(alpha: Float[Tensor, "h w"]) -> tuple[str, ...]:
    try:
        check_whole(alpha)
    except PictureError:
        return ("the object is cut off at the picture's side; it is taken to end there",)
    return ()
