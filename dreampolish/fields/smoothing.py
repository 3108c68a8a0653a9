"""Smoothing a solid where no outline can tell: pits go and thin parts stay.

Pictures of one plain colour say nothing of depth, so a surface fitted to them is full of pits; only its outlines are sure. Here pits
are closed where no outline grows by that, and the surface is blurred where no outline shrinks. [choice]

Notation: signed distances (R, R, R) in world units, negative inside, on the lattice of `lattice_points`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage

from dreampolish.fields.lattice import lattice_points, signed_distances
from dreampolish.scene.cameras import Cameras, pixels_of_points

_BAND = 3.0
"""Lattice steps from a surface within which points are examined; others cannot change sides unseen."""

LEAST_PART = 0.035
"""Side of the cube whose volume a part must have to count as one, world units: smaller ones are frays, not legs. [choice]"""

_CLIP = 3.0
"""Standard deviations at which distances are cut before a blur, so that far parts do not pull at the surface. [choice]"""

_KEPT_MARGIN = 2
"""Lattice steps around a lost part that are kept with it. [choice]"""


@dataclass(frozen=True)
class Smoothing:
    """How a solid is smoothed. cameras: views whose outlines stay. closing_radius, blur_std: in world units, 0 for none."""

    cameras: Cameras
    closing_radius: float
    blur_std: float


def smoothed_within_outlines(
    signed: Float[np.ndarray, "r r r"], half_size: float, smoothing: Smoothing
) -> Float[np.ndarray, "r r r"]:
    """Close the pits, then blur the surface."""
    closed = closed_within_outlines(signed, half_size, smoothing.cameras, smoothing.closing_radius)
    return blurred_within_outlines(closed, half_size, smoothing.cameras, smoothing.blur_std)


def covered(
    where: Bool[np.ndarray, "r r r"], signed: Float[np.ndarray, "r r r"], half_size: float, cameras: Cameras
) -> Bool[np.ndarray, "r r r"]:
    """Which of the asked lattice points lie within the solid's outline in every view, with a margin of a lattice step.

    Views are drawn with as many pixels a side as the lattice has points, so that a pixel is about a step.
    """
    resolution = len(signed)
    cameras = cameras.at_size(resolution).to("cpu")
    points = lattice_points(resolution, half_size, "cpu")
    solid = signed < 0
    shell = points[torch.from_numpy((solid & ~ndimage.binary_erosion(solid)).ravel())]
    asked = torch.from_numpy(where.ravel().nonzero()[0])
    for index in range(len(cameras)):
        drawn = torch.zeros(resolution, resolution, dtype=torch.bool)
        drawn[pixels_of_points(shell, cameras[[index]])] = True
        outline = torch.from_numpy(ndimage.binary_dilation(drawn.numpy(), np.ones((3, 3), dtype=bool)))
        asked = asked[outline[pixels_of_points(points[asked], cameras[[index]])]]
    result = np.zeros(resolution**3, dtype=bool)
    result[asked.numpy()] = True
    return result.reshape(where.shape)


def large_parts(where: Bool[np.ndarray, "r r r"], step: float) -> Bool[np.ndarray, "r r r"]:
    """Those of the connected parts that are no frays. step: between lattice points, world units."""
    parts, _ = ndimage.label(where, np.ones((3, 3, 3)))
    large = np.bincount(parts.ravel()) * step**3 >= LEAST_PART**3
    large[0] = False
    return large[parts]


def closed_within_outlines(
    signed: Float[np.ndarray, "r r r"], half_size: float, cameras: Cameras, radius: float
) -> Float[np.ndarray, "r r r"]:
    """Morphological closing: what a ball of `radius` world units cannot enter from outside becomes solid, where no outline grows."""
    if radius == 0:
        return signed
    step = 2 * half_size / (len(signed) - 1)
    closed = _redistanced(signed - radius, step) + radius
    hidden = covered((signed >= 0) & (closed < _BAND * step), signed, half_size, cameras)
    return _redistanced(np.where(hidden, np.minimum(signed, closed), signed), step)


def blurred_within_outlines(
    signed: Float[np.ndarray, "r r r"], half_size: float, cameras: Cameras, std: float
) -> Float[np.ndarray, "r r r"]:
    """Gaussian blur of the distances by `std` world units, but where an outline would grow, or lose more than a lattice step or a fray."""
    if std == 0:
        return signed
    step = 2 * half_size / (len(signed) - 1)
    blurred = ndimage.gaussian_filter(np.clip(signed, -_CLIP * std, _CLIP * std), std / step)
    near = (np.abs(signed) < _BAND * step) | (np.abs(blurred) < _BAND * step)
    filled = np.where(covered(near, signed, half_size, cameras), blurred, np.maximum(signed, blurred))
    shown = near & ~covered(near, filled, half_size, cameras)
    lost = large_parts(shown & (signed < 0) & (filled >= 0), step)
    kept = shown & ndimage.binary_dilation(lost, iterations=_KEPT_MARGIN)
    return _redistanced(np.where(kept, np.minimum(signed, filled), filled), step)


def _redistanced(values: np.ndarray, step: float) -> np.ndarray:
    """Signed distances to the zero set of values that are negative inside."""
    return signed_distances(-values / step, values < 0, 0.0) * step
