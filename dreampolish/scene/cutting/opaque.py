"""The object of an opaque picture, cut out by what the picture's border tells of the background."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from dreampolish.scene.cutout import LEAST_SPECK, CutoutSizes, unmixed
from dreampolish.scene.cutting.background import FINEST, Background, backgrounds, refitted
from dreampolish.scene.cutting.noise import REACH, SEEN_NOISE, noise_of_border, ringed, smoothed
from dreampolish.scene.cutting.shadows import FINE, SQUARE, flooded, shaded, sharp_edges, slope, soft_shadow
from dreampolish.scene.pictures import PictureError

ROUNDS = 4
"""Most rounds of fitting the background to what the last one found. [choice]"""
SEAM = 2.5
"""Pixels beside the line of floor and wall in which either's colour, and what lies between, is background. [choice]"""
FRINGE, RINGING = 1.5, 0.3
"""Largest tolerances that the fringes of compression are granted, and the share of the contrast nearby that rings reach. [choice]"""
BLUR, BLURRED = 3, (0.1, 0.3, 0.5)
"""Pixels of an outline's blur, and the share of the contrast inside below which it is no object's, in clean, noisy and compressed
pictures. [choice]"""
RIM_NOISE, RIM_RINGS = 2.5, 0.08
"""Deviations of the noise, and the largest distance per channel in compressed pictures, to which rim pixels are mixtures. [choice]"""
STEEP_RIM = 0.08
"""Slope per pixel, as a share of the contrast just inside, from which a rim is a blurred edge and not a faint part. [choice]"""
MOST_TINT = 0.06
"""Largest tolerance in telling shadows. [choice]"""
HOLE, HOLE_RIM = 0.001, 0.6
"""Least share of the object that a hole has, and the share of its edge that must be sharp: a highlight's is not. [choice]"""
SAID_SHADOW, SAID_PIECES, SAID_ENCLOSED = 0.02, 0.03, 0.03
"""Shares of the object from which a shadow, lost pieces and enclosed areas that were kept are told. [choice]"""
SAID_WEAK, MOST_WEAK, WEAK = 0.1, 0.6, 2.5
"""Share of an outline that hardly differs from the background, from which it is told, and beyond which a picture is refused; the tolerances
below which it hardly does. [choice]"""
SAID_SHADES, ALL_SHADES = 0.04, 0.85
"""Shares of an object in darker shades of the background that may be a hard shadow, and from which the object itself is so. [choice]"""


@dataclass(frozen=True)
class Cutout:
    """A picture cut out, and what was assumed."""

    rgba: Float[Tensor, "h w 4"]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What is known of a picture's pixels. contrast: largest distance per channel from the background. allowed: what of it noise and
    compression explain. rippled: where compression rings. steep: the slope per pixel. known: what the picture shows at all."""

    picture: Float[np.ndarray, "h w 3"]
    background: Background
    noise: float
    known: Bool[np.ndarray, "h w"]
    contrast: Float[np.ndarray, "h w"]
    allowed: Float[np.ndarray, "h w"]
    rippled: Bool[np.ndarray, "h w"]
    steep: Float[np.ndarray, "h w"]
    sharp: Bool[np.ndarray, "h w"]

    @property
    def tinted(self) -> Float[np.ndarray, "h w"]:
        """How far a shadow's colours may be off."""
        return np.minimum(self.allowed, MOST_TINT)

    @property
    def plain(self) -> Bool[np.ndarray, "h w"]:
        """Pixels in the background's colour."""
        return (self.contrast <= self.allowed) | ~self.known


def cut_from_background(rgb: Float[Tensor, "h w 3"], known: Bool[Tensor, "h w"], most: float, sizes: CutoutSizes) -> Cutout:
    """RGBA of a picture whose border tells of the background.

    known: pixels that the picture shows; all others are background. most: largest tolerance, per channel, that noise is granted.
    Raises PictureError in one line where the background is not plain or nothing stands out from it.
    """
    array, shown = rgb.double().numpy(), known.numpy()
    seen, notes = _seen(array, shown, most, sizes.largest_stray_border)
    background = flooded(seen.plain, ~shown)
    shadow = soft_shadow(shaded(seen.picture, seen.background.colors, seen.tinted), seen.sharp, background)
    mask = _trimmed(_between(seen, ~background & ~shadow, background | shadow, shadow), seen)
    mask, said = _without_holes(seen, mask)
    mask, pieces = _parts(mask)
    notes += [*_shadow_notes(shadow & (seen.contrast > 2 * seen.allowed), mask), *said, *pieces, *_doubts(seen, mask)]
    behind = _behind(seen.picture, seen.background.colors, mask)
    tolerance = max(seen.background.tolerance, 4 * FINEST, RIM_NOISE * seen.noise, RIM_RINGS * seen.rippled.any())
    rgba = unmixed(rgb=array, mask=mask, background=behind, tolerance=tolerance, sizes=sizes)
    return Cutout(torch.from_numpy(rgba.astype(np.float32)), tuple(notes))


def _seen(rgb: np.ndarray, known: np.ndarray, most: float, most_stray: float) -> tuple[Seen, list[str]]:
    noise = noise_of_border(rgb)
    picture = smoothed(rgb, noise)
    background = _chosen(list(backgrounds(picture, known, most)), picture, most_stray)
    background = _settled(picture, background, known)
    contrast = _contrast(picture, background)
    rippled = ringed(picture, contrast)
    allowed = np.full(known.shape, background.tolerance)
    if rippled.any():
        near = ndimage.maximum_filter(contrast, 2 * REACH + 1)
        allowed = np.where(rippled, np.clip(RINGING * near, background.tolerance, FRINGE * most), allowed)
    steep = slope(picture, FINE)
    sharp = sharp_edges(picture, steep, np.minimum(allowed, MOST_TINT))
    if background.fold is not None:
        sharp &= ~_seam(background, known.shape)
    seen = Seen(
        picture=picture,
        background=background,
        noise=noise,
        known=known,
        contrast=contrast,
        allowed=allowed,
        rippled=rippled,
        steep=steep,
        sharp=sharp,
    )
    return seen, [] if background.smooth else ["the background was taken for a floor and a wall"]


def _chosen(tried: list[Background], picture: np.ndarray, most_stray: float) -> Background:
    """The first that explains the border; else the first that does where shades of it are shadows, or where an object may cover a side."""
    shades = [shaded(picture, each.colors, np.full(each.off.shape, each.tolerance)) for each in tried]
    lit = [replace(each, off=each.off & ~shade) for each, shade in zip(tried, shades, strict=True)]
    for of_which, sides in ((tried, 4), (lit, 4), (lit, 3)):
        for each in of_which:
            if each.stray(sides) <= most_stray:
                return each
    raise PictureError(
        f"the background is not plain: {min(each.stray(4) for each in lit):.0%} of the border differs from it (limit {most_stray:.0%}); "
        "give a picture with a transparent (RGBA) or one-coloured background, or name a matting model"
    )


def _settled(picture: np.ndarray, background: Background, known: np.ndarray) -> Background:
    """Its tolerance by what smoothing left of the noise, its colours by all of it that is found in a few rounds."""
    for _ in range(ROUNDS):
        found = flooded((_contrast(picture, background) <= background.tolerance) | ~known, ~known)
        finer = refitted(background, picture, ndimage.binary_erosion(found, iterations=2) & known)
        moved = np.abs(finer.colors - background.colors).max()
        background = finer
        if moved < background.tolerance / 3:
            break
    return background


def _contrast(picture: np.ndarray, background: Background) -> np.ndarray:
    contrast = np.abs(picture - background.colors).max(axis=2)
    if background.fold is None:
        return contrast
    rows, columns = np.indices(contrast.shape)
    beyond = np.where(_below(background, contrast.shape) > 0, rows - 6, rows + 6).clip(0, len(rows) - 1)
    other = background.colors[beyond, columns]
    low, high = np.minimum(other, background.colors), np.maximum(other, background.colors)
    between = np.maximum(low - picture, picture - high).max(axis=2).clip(0)
    return np.where(_seam(background, contrast.shape), between, contrast)


def _below(background: Background, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels below the line of floor and wall."""
    assert background.fold is not None
    rows, columns = np.indices(shape)
    return background.fold.depth(((columns + 0.5) / shape[1] * 2 - 1, (rows + 0.5) / shape[0] * 2 - 1)) * shape[0]


def _seam(background: Background, shape: tuple[int, ...]) -> np.ndarray:
    return np.abs(_below(background, shape)) < SEAM


def _between(seen: Seen, mask: np.ndarray, rest: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """At the edge of object and shadow: whose colour, a few pixels on, is nearer."""
    inner, outer = ndimage.binary_erosion(mask, SQUARE, iterations=2), ndimage.binary_erosion(rest, SQUARE, border_value=1)
    if not shadow.any() or not inner.any() or not outer.any():
        return mask
    rim = ~inner & ~outer & ndimage.binary_dilation(shadow, iterations=4)
    nearest = [ndimage.distance_transform_edt(~side, return_distances=False, return_indices=True) for side in (inner, outer)]
    off = [((seen.picture - seen.picture[at[0], at[1]]) ** 2).sum(axis=2) for at in nearest]
    return np.where(rim, off[0] < off[1], mask)


def _trimmed(mask: np.ndarray, seen: Seen) -> np.ndarray:
    """Without the blur that smoothing and compression left around it: rim pixels of little contrast beside that just inside."""
    clean, noisy, compressed = BLURRED
    share = compressed if seen.rippled.any() else noisy if seen.noise > SEEN_NOISE else clean
    inside = ndimage.maximum_filter(np.where(mask, seen.contrast, 0), 2 * BLUR + 1)
    rim = mask & ndimage.binary_dilation(~mask, iterations=BLUR + 1)
    return mask & ~(rim & (seen.contrast < share * inside) & (seen.steep > STEEP_RIM * inside))


def _without_holes(seen: Seen, mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
    labels, _ = ndimage.label(seen.plain & mask)
    area, holes, kept = mask.sum(), 0, 0.0
    mask = mask.copy()
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        rows, columns = (slice(max(0, side.start - 4), side.stop + 4) for side in place)
        region = labels[rows, columns] == number
        if region.sum() < max(12, HOLE * area):
            continue
        rim = ndimage.binary_dilation(region) & ~region
        if ndimage.binary_dilation(seen.sharp[rows, columns], SQUARE)[rim].mean() > HOLE_RIM:
            mask[rows, columns] &= ~region
            holes += 1
        else:
            kept = max(kept, float(region.sum() / area))
    notes = []
    if holes:
        gone = 1 - mask.sum() / area
        which = "an enclosed area" if holes == 1 else f"{holes} enclosed areas"
        notes.append(
            f"{which} in the background's colour ({gone:.0%} of the object) became holes; give an RGBA picture if the object is so coloured"
        )
    if kept > SAID_ENCLOSED:
        notes.append(
            f"an enclosed area like the background ({kept:.0%} of the object) has no sharp edge and was kept as its own"
        )
    return (_trimmed(mask, seen) if holes else mask), notes


def _parts(mask: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Without small pieces. PictureError where there is nothing."""
    labels, count = ndimage.label(mask, SQUARE)
    if count == 0:
        raise PictureError("no object stands out from the background; give a picture of one object on another colour, or RGBA")
    areas = np.bincount(labels.ravel())[1:]
    large = areas >= LEAST_SPECK * areas.max()
    notes = []
    if areas[~large].sum() > SAID_PIECES * areas.sum():
        notes.append(
            f"small pieces that stood out from the background ({areas[~large].sum() / areas.sum():.0%} of the object) were dropped"
        )
    if large.sum() > 1:
        notes.append(f"{large.sum()} parts that do not touch were kept as one object; crop the picture if only one is meant")
    return np.isin(labels, np.flatnonzero(large) + 1), notes


def _shadow_notes(shadow: np.ndarray, mask: np.ndarray) -> list[str]:
    """Of shadows wider than a blurred outline."""
    wide = ndimage.binary_opening(shadow, np.ones((2 * BLUR - 1, 2 * BLUR - 1)))
    share = (wide & ~mask).sum() / max(mask.sum(), 1)
    return [f"a soft shadow on the background ({share:.0%} of the object's area) was left out"] if share > SAID_SHADOW else []


def _doubts(seen: Seen, mask: np.ndarray) -> list[str]:
    """What may be wrong with the outline. PictureError where most of it cannot be told from the background."""
    notes = []
    outline = mask & ~ndimage.binary_erosion(mask, iterations=2, border_value=1)
    near = ndimage.maximum_filter(np.where(mask, seen.contrast, 0), 5)
    weak = float((near < WEAK * seen.background.tolerance)[outline].mean()) if outline.any() else 0.0
    if weak > MOST_WEAK and seen.noise > SEEN_NOISE:
        raise PictureError(
            f"the object hardly differs from the background along {weak:.0%} of its outline; give an RGBA picture, one before another "
            "colour, or name a matting model"
        )
    if weak > SAID_WEAK:
        notes.append(f"{weak:.0%} of the outline hardly differs from the background; look at the cut-out")
    inside = ndimage.binary_erosion(mask, iterations=2)
    shades = inside & shaded(seen.picture, seen.background.colors, np.full(mask.shape, seen.background.tolerance))
    share = shades.sum() / max(inside.sum(), 1)
    if share > ALL_SHADES:
        notes.append(
            "the object is in shades of the background's colour: a hard shadow, if there is one, was taken for a part of it"
        )
    elif share > SAID_SHADES:
        notes.append(f"{share:.0%} of the object are darker shades of the background's colour, which may be a hard shadow")
    return notes


def _behind(rgb: np.ndarray, colors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The background behind the object's rim as the picture shows it next to it, shadows included."""
    outside = ~ndimage.binary_dilation(mask, iterations=2)
    if not outside.any():
        return colors
    at = ndimage.distance_transform_edt(~outside, return_distances=False, return_indices=True)
    return rgb[at[0], at[1]]
