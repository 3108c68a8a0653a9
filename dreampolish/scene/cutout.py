"""A reference picture made canonical: foreground cut from a plain background, recentred, scaled as the priors' objects are."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT
from dreampolish.scene.pictures import PictureError

OBJECT_RADIUS = 0.6
"""Radius of the sphere, in world units, that an object fills (docs/conventions.md)."""

LARGEST_SHARE = 0.8
"""Longest side of the object over the picture's side: leaves the 10 % border on each side."""

LEAST_SPECK = 0.02
"""Foreground components below this share of the largest one's area are dropped. [choice]"""

LEAST_FOREGROUND, LARGEST_FOREGROUND = 0.01, 0.98
"""Shares of the picture that an object must cover at least and at most. [choice]"""

LARGEST_CUT = 0.02
"""Share of a picture's side that an object may touch before it counts as cut off there. [choice]"""

LEAST_ALPHA = 1e-3
"""Coverage below which a resampled pixel has no colour of its own and becomes white."""


@dataclass(frozen=True)
class CutoutSizes:
    """How an object is cut from a plain background; the settings `reference.cutout`, whose reasons docs/choices.md gives.

    largest_stray_border: share of the border's pixels that may differ from its colour. rim_depth: pixels from the outside that may be
    mixed with the background. rim_reach: pixels around a rim's pixel in which the object's own colour is looked for. rim_opaque:
    coverage from which a rim's pixel stays as it is. rim_contrast: tolerances by which a rim's own colour must differ from the
    background's. rim_rise: least rise of coverage towards the inside.
    """

    largest_stray_border: float
    rim_depth: int
    rim_reach: int
    rim_opaque: float
    rim_contrast: float
    rim_rise: float


def cut_from_plain_background(rgb: Float[Tensor, "h w 3"], tolerance: float, sizes: CutoutSizes) -> Float[Tensor, "h w 4"]:
    """RGBA of a picture whose border is one plain colour: the object is what a flood from the border does not reach, and at its rim,
    where a pixel mixes both, the background's colour is taken out again (`unmixed`).

    tolerance: largest distance of a background pixel from the border's median colour, in [0, 1] per channel. Enclosed areas of the
    background's colour belong to the object. Raises PictureError when the border is not plain.
    """
    array = rgb.numpy()
    border = np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])
    colour = np.median(border, axis=0)
    off = np.abs(border - colour).max(axis=1) > tolerance
    if off.mean() > sizes.largest_stray_border:
        raise PictureError(
            f"the background is not plain: {off.mean():.0%} of the border differs from its main colour "
            f"(limit {sizes.largest_stray_border:.0%}); "
            "give a picture with a transparent (RGBA) or one-coloured background"
        )
    near = np.abs(array - colour).max(axis=2) <= tolerance
    labels, _ = ndimage.label(near)
    reached = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    background = np.isin(labels, reached[reached > 0])
    behind = np.broadcast_to(colour, array.shape)
    rgba = unmixed(rgb=array, mask=_without_specks(~background), background=behind, tolerance=tolerance, sizes=sizes)
    return torch.from_numpy(rgba.astype(np.float32, copy=False))


def unmixed(
    rgb: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    background: Float[np.ndarray, "h w 3"],
    tolerance: float,
    sizes: CutoutSizes,
) -> Float[np.ndarray, "h w 4"]:
    """RGBA with the rim's coverage and own colour, where a pixel shows alpha * own + (1 - alpha) * background.

    The own colour of a pixel is the one around it (rim_reach) that is farthest from the background's, of those on whose way to the
    background the pixel lies, to the tolerance; alpha is its place on that way. A pixel counts as mixed only where coverage rises
    inwards, from the outside on, and where it and its own colour stand out; all others stay as they are. A lighter pixel of the
    object at its very outline cannot be told from a mixture; over the background the picture is the same to the tolerance.
    """
    reach = sizes.rim_reach
    depth = ndimage.distance_transform_cdt(np.pad(mask, reach, mode="edge"), "chessboard")
    if depth.min() != 0:
        return np.dstack([rgb, mask.astype(rgb.dtype)])
    offset = np.pad(rgb - background, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    inside = np.s_[reach:-reach, reach:-reach]
    near = np.zeros(depth.shape, dtype=bool)
    near[inside] = (depth[inside] > 0) & (depth[inside] <= sizes.rim_depth + 1)
    rows, columns = np.nonzero(near)
    share, own = _shares(offset=offset, depth=depth, rows=rows, columns=columns, tolerance=tolerance, sizes=sizes)
    coverage = (depth > 0).astype(rgb.dtype)
    coverage[rows, columns] = share
    rises = coverage[rows, columns] + sizes.rim_rise <= _inward(coverage, depth, rows, columns)
    mixed = np.zeros(depth.shape, dtype=bool)
    for layer in range(1, sizes.rim_depth + 1):
        # What lies deeper is mixed only beside what is.
        open_to = ndimage.binary_dilation(mixed if layer > 1 else depth == 0, np.ones((3, 3)))
        found = rises & (share < sizes.rim_opaque) & (depth[rows, columns] == layer) & open_to[rows, columns]
        mixed[rows[found], columns[found]] = True
    chosen = mixed[rows, columns]
    alpha, colour = mask.astype(rgb.dtype), rgb.copy()
    at = rows[chosen] - reach, columns[chosen] - reach
    alpha[at], colour[at] = share[chosen], own[chosen] + background[at]
    return np.dstack([colour, alpha])


def _shares(
    offset: np.ndarray, depth: np.ndarray, rows: np.ndarray, columns: np.ndarray, tolerance: float, sizes: CutoutSizes
) -> tuple[np.ndarray, np.ndarray]:
    """Of some pixels the place on the way from the background to their own colour, 0..1, and that colour's offset from the
    background. offset: of all pixels, padded. depth: in pixels from the outside, 0 there."""
    here = offset[rows, columns]
    farthest, share, own = np.abs(here).max(axis=1), np.ones(len(rows), dtype=offset.dtype), here.copy()
    # What is as pale as the background was not reached from outside: it is the object's.
    stands_out = farthest > tolerance
    span = range(-sizes.rim_reach, sizes.rim_reach + 1)
    for row, column in ((row, column) for row in span for column in span):
        way = offset[rows + row, columns + column]
        distance = np.abs(way).max(axis=1)
        place = (here * way).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-12)
        on_the_way = np.abs(here - place[:, None] * way).max(axis=1) <= tolerance
        better = (
            (distance > np.maximum(farthest, sizes.rim_contrast * tolerance))
            & (depth[rows + row, columns + column] > 0)
            & stands_out & on_the_way & (place > 0) & (place < 1)
        )  # fmt: skip
        farthest, share = np.where(better, distance, farthest), np.where(better, place, share)
        own = np.where(better[:, None], way, own)
    return share, own


def _inward(coverage: np.ndarray, depth: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The median coverage of the neighbours that lie deeper than a pixel; of parts so thin that none does, the largest one of all."""
    own_depth = depth[rows, columns]
    around = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)]
    values = np.stack([coverage[rows + row, columns + column] for row, column in around])
    deeper = np.stack([depth[rows + row, columns + column] > own_depth for row, column in around])
    thin = ~deeper.any(axis=0)
    deeper[:, thin] = True
    medians = np.nanmedian(np.where(deeper, values, np.nan), axis=0)
    return np.where(thin, values.max(axis=0), medians)


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """The mask without components under 2 % of the largest one's area."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count == 0:
        return mask
    areas = np.bincount(labels.ravel())[1:]
    return np.isin(labels, np.flatnonzero(areas >= LEAST_SPECK * areas.max()) + 1)


def check_foreground(alpha: Float[Tensor, "h w"]) -> None:
    """Raise PictureError where the foreground is missing, tiny or fills the whole picture."""
    share = float((alpha > 0.5).float().mean())
    if share < LEAST_FOREGROUND:
        raise PictureError(
            f"the object covers {share:.1%} of the picture (at least {LEAST_FOREGROUND:.0%}); crop the picture closer to the object"
        )
    if share > LARGEST_FOREGROUND:
        raise PictureError(
            f"the object covers {share:.0%} of the picture (at most {LARGEST_FOREGROUND:.0%}); "
            "give a picture with a transparent or plain background"
        )


def check_whole(alpha: Float[Tensor, "h w"]) -> None:
    """Raise PictureError where the object is cut off by some of the picture's sides. One that touches all four was trimmed to its box."""
    sides = {"top": alpha[0], "bottom": alpha[-1], "left": alpha[:, 0], "right": alpha[:, -1]}
    cut = [name for name, pixels in sides.items() if float((pixels > 0.5).float().mean()) > LARGEST_CUT]
    touched = [name for name, pixels in sides.items() if bool((pixels > 0.5).any())]
    if cut and len(touched) < len(sides):
        raise PictureError(f"the object is cut off at the {' and '.join(cut)}; give a picture that shows all of it")


def scale_of_box(width: float, height: float) -> float:
    """Factor from the unit of a picture's bounding box to world units.

    The depth that a picture hides is taken as the shorter of the two sides; then the box's half diagonal becomes OBJECT_RADIUS, as in
    the priors' training data, and the longest side at most LARGEST_SHARE of the picture. [choice]
    """
    half_diagonal = 0.5 * (width**2 + height**2 + min(width, height) ** 2) ** 0.5
    return min(OBJECT_RADIUS / half_diagonal, LARGEST_SHARE * 2 * FRAMING_HALF_HEIGHT / max(width, height))


def recentre(rgba: Float[Tensor, "h w 4"], size: int, keep_scale: bool) -> Float[Tensor, "size size 4"]:
    """The object's box moved to the picture's centre and scaled (`scale_of_box`), on a square RGBA picture of `size` pixels.

    keep_scale: only move, and shrink where the border would be under 10 % (for pictures drawn by a prior, whose scale is known).
    Colours are premultiplied while resampling and opaque where alpha is 0 (white).
    """
    rows = torch.nonzero((rgba[..., 3] > 0.5).any(dim=1)).flatten()
    columns = torch.nonzero((rgba[..., 3] > 0.5).any(dim=0)).flatten()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    width, height = float(right - left), float(bottom - top)
    side = 2 * FRAMING_HALF_HEIGHT / scale_of_box(width, height)
    if keep_scale:
        side = max(float(rgba.shape[0]), max(width, height) / LARGEST_SHARE)
    return resampled(rgba, ((left + right) / 2, (top + bottom) / 2), side, size)


def as_framed(rgba: Float[Tensor, "h w 4"], size: int) -> Float[Tensor, "size size 4"]:
    """A square RGBA picture at `size` pixels, neither moved nor scaled within its frame. Raises PictureError if it is not square."""
    height, width = rgba.shape[:2]
    if height != width:
        raise PictureError(f"the picture has {width}x{height} pixels, but one that keeps its framing must be square; crop it")
    return resampled(rgba, (width / 2, height / 2), float(width), size)


def resampled(
    rgba: Float[Tensor, "h w 4"], centre: tuple[float, float], side: float, size: int
) -> Float[Tensor, "size size 4"]:
    """A square window of `side` pixels around `centre` (column, row), area-averaged to `size` pixels, transparent outside."""
    oversampling = max(1, round(side / size))
    steps = (torch.arange(size * oversampling) + 0.5) / (size * oversampling) * side - side / 2
    grid_x = (steps + centre[0]) / rgba.shape[1] * 2 - 1
    grid_y = (steps + centre[1]) / rgba.shape[0] * 2 - 1
    grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=-1)[None]
    premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1).permute(2, 0, 1)[None]
    window = torch.nn.functional.grid_sample(premultiplied, grid, padding_mode="zeros", align_corners=False)
    window = torch.nn.functional.avg_pool2d(window, oversampling)[0].permute(1, 2, 0)
    alpha = window[..., 3:].clamp(0, 1)
    colour = torch.where(alpha > LEAST_ALPHA, window[..., :3] / alpha.clamp_min(LEAST_ALPHA), torch.ones(()))
    return torch.cat([colour.clamp(0, 1), alpha], dim=-1)


def on_white(rgba: Float[Tensor, "h w 4"]) -> Float[Tensor, "h w 3"]:
    """The picture over a white background."""
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])
