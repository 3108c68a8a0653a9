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


@dataclass(frozen=True)
class Smoothing:
    """How a solid is smoothed; why so, docs/choices.md says.

    cameras: views whose outlines stay. closing_radius, blur_std: in world units, 0 for none. least_part: side of the cube whose volume
    a part must have to count as one, world units. clip: standard deviations at which distances are cut before the blur. kept_margin:
    lattice steps around a lost part that are kept with it. band: lattice steps from a surface within which points are examined;
    others cannot change sides unseen.
    """

    cameras: Cameras
    closing_radius: float
    blur_std: float
    least_part: float
    clip: float
    kept_margin: int
    band: float


def smoothed_within_outlines(
    signed: Float[np.ndarray, "r r r"], half_size: float, smoothing: Smoothing
) -> Float[np.ndarray, "r r r"]:
    """Close the pits, then blur the surface."""
    return blurred_within_outlines(closed_within_outlines(signed, half_size, smoothing), half_size, smoothing)


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


def large_parts(where: Bool[np.ndarray, "r r r"], step: float, least_part: float) -> Bool[np.ndarray, "r r r"]:
    """Those of the connected parts that are no frays: with the volume of a cube of side least_part. step: between lattice points.

    Both in world units.
    """
    parts, _ = ndimage.label(where, np.ones((3, 3, 3)))
    large = np.bincount(parts.ravel()) * step**3 >= least_part**3
    large[0] = False
    return large[parts]


def closed_within_outlines(
    signed: Float[np.ndarray, "r r r"], half_size: float, smoothing: Smoothing
) -> Float[np.ndarray, "r r r"]:
    """Morphological closing: what a ball of `closing_radius` cannot enter from outside becomes solid, where no outline grows."""
    radius = smoothing.closing_radius
    if radius == 0:
        return signed
    step = 2 * half_size / (len(signed) - 1)
    closed = _redistanced(signed - radius, step) + radius
    hidden = covered((signed >= 0) & (closed < smoothing.band * step), signed, half_size, smoothing.cameras)
    return _redistanced(np.where(hidden, np.minimum(signed, closed), signed), step)


def blurred_within_outlines(
    signed: Float[np.ndarray, "r r r"], half_size: float, smoothing: Smoothing
) -> Float[np.ndarray, "r r r"]:
    """Gaussian blur of the distances by `blur_std`, but where an outline would grow, or lose more than a lattice step or a fray."""
    std, cameras = smoothing.blur_std, smoothing.cameras
    if std == 0:
        return signed
    step = 2 * half_size / (len(signed) - 1)
    blurred = ndimage.gaussian_filter(np.clip(signed, -smoothing.clip * std, smoothing.clip * std), std / step)
    near = (np.abs(signed) < smoothing.band * step) | (np.abs(blurred) < smoothing.band * step)
    filled = np.where(covered(near, signed, half_size, cameras), blurred, np.maximum(signed, blurred))
    shown = near & ~covered(near, filled, half_size, cameras)
    lost = large_parts(shown & (signed < 0) & (filled >= 0), step, smoothing.least_part)
    kept = shown & ndimage.binary_dilation(lost, iterations=smoothing.kept_margin)
    return _redistanced(np.where(kept, np.minimum(signed, filled), filled), step)


def _redistanced(values: np.ndarray, step: float) -> np.ndarray:
    """Signed distances to the zero set of values that are negative inside."""
    return signed_distances(-values / step, values < 0, 0.0) * step
