"""Values on a cubic lattice: its points, interpolation, signed distances.

Notation: R points a side, the outermost on the sides of a box of half_size world units, axes x, y, z, x slowest.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor, nn

from dreampolish.fields.occupancy import t_range_from_box
from dreampolish.scene.cameras import Cameras, rays_from_cameras

_LEAST_SHARE = 1e-3
"""Interpolated crossings keep this share of a lattice step from lattice points, so that no distance is 0."""

_NEAR_STEPS = 2
"""Lattice steps within which an interpolated distance to the level set is used as it is."""


def lattice_points(resolution: int, half_size: float, device: torch.device | str) -> Float[Tensor, "n 3"]:
    """The points of a lattice whose outermost points lie on the box's sides, x slowest."""
    axis = torch.linspace(-half_size, half_size, resolution, device=device)
    return torch.cartesian_prod(axis, axis, axis)


def sample_lattice(values: Float[Tensor, "r r r"], points: Float[Tensor, "n 3"], half_size: float) -> Float[Tensor, " n"]:
    """Trilinear interpolation of values at `lattice_points`."""
    where = (points / half_size).flip(-1).view(1, 1, 1, -1, 3)
    picked = nn.functional.grid_sample(values[None, None], where, align_corners=True, padding_mode="border")
    return picked.view(-1)


def lattice_along_rays(
    values: Sequence[Float[Tensor, "r r r"]], half_size: float, cameras: Cameras, step_size: float
) -> tuple[Float[Tensor, "n s"], list[Float[Tensor, "n s"]]]:
    """Every pixel's ray (row by row, view by view) through the box in even steps: their distances, and each lattice's values there.

    step_size: world units. Values are 0 behind the box, and on rays that miss it.
    """
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(cameras))
    corner = torch.full((3,), half_size, device=origins.device)
    near, far = t_range_from_box(origins, directions, -corner, corner)
    n_steps = int(2 * half_size * 3**0.5 / step_size) + 1
    t = near[:, None] + (torch.arange(n_steps, device=origins.device) + 0.5) * step_size
    points = (origins[:, None] + directions[:, None] * t[..., None]).view(-1, 3)
    inside = t < far[:, None]
    return t, [sample_lattice(one, points, half_size).view_as(t) * inside for one in values]


def _crossing_distances(densities: np.ndarray, solid: np.ndarray, level: float) -> np.ndarray:
    """Distance in lattice steps from every point to the level set between it and its six neighbours; infinite without a
    crossing.

    Crossings are interpolated along each axis; the plane through them lies at (sum of d_axis^-2)^-1/2.
    """
    inverse_squares = np.zeros_like(densities)
    for axis in range(3):
        here, there = np.moveaxis(densities, axis, 0)[:-1], np.moveaxis(densities, axis, 0)[1:]
        crossed = np.diff(np.moveaxis(solid, axis, 0), axis=0)
        share = np.clip(np.abs(here - level) / np.maximum(np.abs(here - there), 1e-9), _LEAST_SHARE, 1 - _LEAST_SHARE)
        closest = np.zeros_like(np.moveaxis(densities, axis, 0))
        closest[:-1] = crossed / share**2
        closest[1:] = np.maximum(closest[1:], crossed / (1 - share) ** 2)
        inverse_squares += np.moveaxis(closest, 0, axis)
    return 1 / np.sqrt(np.maximum(inverse_squares, 1e-12))


def signed_distances(
    densities: Float[np.ndarray, "r r r"], solid: Bool[np.ndarray, "r r r"], level: float
) -> Float[np.ndarray, "r r r"]:
    """Signed distances to the surface of a solid, in lattice steps, negative inside.

    Next to the surface they are interpolated. Elsewhere scipy's Euclidean transform finds the nearest point across the surface,
    and what that point lies behind the surface itself is taken off. (Half a step for all, as is usual, biases far distances:
    the nearest point is mostly one that hardly reached the level.)
    """
    near = _crossing_distances(densities, solid, level)

    def distance(from_where: np.ndarray) -> np.ndarray:
        steps, nearest = ndimage.distance_transform_edt(from_where, return_indices=True)
        return np.where(near < _NEAR_STEPS, near, steps - near[tuple(nearest)]) * from_where

    return distance(~solid) - distance(solid)
