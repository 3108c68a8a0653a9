"""What the alpha of a picture says, and what of it says nothing: faint values everywhere, shadows, specks, glass, premultiplied colours."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from dreampolish.scene.cutout import LEAST_SPECK
from dreampolish.scene.cutting.shadows import SQUARE

OPAQUE = 0.98
"""Alpha from which a pixel is opaque: exporters leave 254 of 255. [choice]"""
FAINT = 0.05
"""Largest alpha that may lie over the whole border and mean none. [choice]"""
CORNERS, LEAST_OPAQUE = 0.25, 0.9
"""Rounded corners: share of a side within which all that is transparent lies, and the share of the picture that is opaque. [choice]"""
DARK, MOST_COVER, SOFT = 0.3, 0.95, 0.12
"""A shadow in alpha: its brightest channel, its largest alpha, and how far its alpha may jump per pixel towards nothing. [choice]"""
GLASS, FLAT = 0.03, 0.05
"""Glass: its width as a share of the shorter side, and how far its alpha may change per pixel. [choice]"""
LEAST_AREA = 0.01
"""Share of the object from which shadow and glass are looked at. [choice]"""

Cleaned = tuple[Float[np.ndarray, "h w 4"], list[str]]


def is_opaque(alpha: Float[np.ndarray, "h w"]) -> bool:
    """Whether a picture's alpha says nothing."""
    return bool(alpha.min() >= OPAQUE)


def has_rounded_corners(alpha: Float[np.ndarray, "h w"]) -> bool:
    """Whether only the picture's corners are transparent, as in a screenshot."""
    away = alpha < OPAQUE
    height, width = away.shape
    rows, columns = (max(1, round(CORNERS * side)) for side in (height, width))
    inside = away.copy()
    for row in (slice(0, rows), slice(height - rows, None)):
        for column in (slice(0, columns), slice(width - columns, None)):
            inside[row, column] = False
    corners = [alpha[row, column] < 0.5 for row in (0, -1) for column in (0, -1)]
    return not inside.any() and sum(map(bool, corners)) >= 2 and float((~away).mean()) >= LEAST_OPAQUE


def cleaned(rgba: Float[np.ndarray, "h w 4"]) -> Cleaned:
    """A picture with alpha as its object's coverage, and what was assumed. One that needs nothing comes back as it was."""
    notes = list[str]()
    for step in (_without_veil, _unmultiplied, _without_shadow, _without_specks, _with_solid_glass):
        rgba, said = step(rgba)
        notes += said
    return rgba, notes


def _without_veil(rgba: np.ndarray) -> Cleaned:
    alpha = rgba[..., 3]
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    veil = float(np.median(border))
    if not 0 < veil <= FAINT:
        return rgba, []
    clear = np.where(alpha <= 1.5 * veil, 0, (alpha - veil) / (1 - veil))
    return _with_alpha(rgba, clear), [f"faint alpha ({veil:.1%}) all over the picture was taken for none"]


def _unmultiplied(rgba: np.ndarray) -> Cleaned:
    """Colours that were multiplied by alpha, as compositing programs keep them, divided by it again: where that brings the rim's colours
    nearer to those of the opaque pixels beside it, or where much of the rim is as bright as its alpha, white in truth."""
    color, alpha = rgba[..., :3], rgba[..., 3]
    rim, solid = (alpha > 0.2) & (alpha < 0.8), alpha >= OPAQUE
    if rim.sum() < 16 or not solid.any() or (color.max(axis=2) > alpha + 4 / 255)[rim].mean() > 0.02:
        return rgba, []
    at = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    own = color[at[0], at[1]]
    divided = np.where(alpha[..., None] > 0, color / np.maximum(alpha, 1e-6)[..., None], color).clip(0, 1)
    off = [float(np.abs(each - own)[rim].mean()) for each in (color, divided)]
    white = float((np.abs(color.max(axis=2) - alpha) < 1.5 / 255)[rim].mean())
    if off[1] > 0.5 * off[0] and white < 0.3:
        return rgba, []
    return np.dstack([divided, alpha]), ["colours that were multiplied by alpha were divided by it"]


def _without_shadow(rgba: np.ndarray) -> Cleaned:
    """Without half-transparent black whose alpha fades out. Dark glass ends sharply."""
    color, alpha = rgba[..., :3], rgba[..., 3]
    dark = (color.max(axis=2) < DARK) & (alpha > 0) & (alpha < MOST_COVER)
    labels, count = ndimage.label(dark, SQUARE)
    ends = dark & ndimage.binary_dilation(alpha < 2 / 255, SQUARE)
    every = np.bincount(labels[ends], minlength=count + 1)
    soft = np.bincount(labels[ends & (alpha < SOFT)], minlength=count + 1)
    wide = np.bincount(labels[ndimage.binary_erosion(dark, SQUARE)], minlength=count + 1)
    solid = max(1, int((alpha > 0.5).sum()))
    found = np.flatnonzero((soft > 0.7 * np.maximum(every, 1)) & (wide > LEAST_AREA * solid))
    shadow = np.isin(labels, found[found > 0])
    if not shadow.any():
        return rgba, []
    clear = _with_alpha(rgba, np.where(shadow, 0, alpha))
    return clear, [
        f"a half-transparent shadow ({shadow.sum() / max(1, (clear[..., 3] > 0.5).sum()):.0%} of the object's area) was left out"
    ]


def _without_specks(rgba: np.ndarray) -> Cleaned:
    alpha = rgba[..., 3]
    labels, count = ndimage.label(alpha > 0, SQUARE)
    if count < 2:
        return rgba, []
    areas = np.bincount(labels.ravel())[1:]
    small = areas < LEAST_SPECK * areas.max()
    notes = []
    if small.any():
        rgba = _with_alpha(rgba, np.where(np.isin(labels, np.flatnonzero(small) + 1), 0, alpha))
        notes.append(f"{small.sum()} specks beside the object were dropped")
    if (~small).sum() > 1:
        notes.append(f"{(~small).sum()} parts that do not touch were kept as one object; crop the picture if only one is meant")
    return rgba, notes


def _with_solid_glass(rgba: np.ndarray) -> Cleaned:
    """Wide parts of an even, partial alpha, made opaque in the colour that they have over white."""
    color, alpha = rgba[..., :3], rgba[..., 3]
    width = max(3, round(GLASS * min(alpha.shape)))
    change = ndimage.maximum_filter(alpha, 3) - ndimage.minimum_filter(alpha, 3)
    even = (alpha > FAINT) & (alpha < MOST_COVER) & (change < FLAT)
    glass = _opened(even, width)
    if glass.sum() < LEAST_AREA * max(1, (alpha > FAINT).sum()):
        return rgba, []
    glass = ndimage.binary_dilation(glass, SQUARE, iterations=2, mask=alpha > FAINT)
    cover = alpha[..., None]
    solid = np.where(glass[..., None], color * cover + 1 - cover, color)
    share = glass.sum() / max(1, (alpha > FAINT).sum())
    return np.dstack([solid, np.where(glass, 1.0, alpha)]), [
        f"translucent parts ({share:.0%} of the object) were taken for solid, in the colour that they have over white"
    ]


def _opened(mask: Bool[np.ndarray, "h w"], width: int) -> Bool[np.ndarray, "h w"]:
    """What a square of `width` pixels fits into."""
    square = np.ones((width, width))
    return np.asarray(ndimage.binary_opening(mask, square))


def _with_alpha(rgba: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([rgba[..., :3], alpha])
