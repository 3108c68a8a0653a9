"""From a density to a signed distance: no geometry that the NeRF stage found is thrown away."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor

from dreampolish.fields.density import DensityField
from dreampolish.fields.hash_grid import ADAM_BETAS, ADAM_EPSILON
from dreampolish.fields.lattice import lattice_along_rays, lattice_points, sample_lattice, signed_distances
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.fields.smoothing import Smoothing, smoothed_within_outlines
from dreampolish.fields.thin_parts import ThinPartsSizes, with_faint_parts
from dreampolish.scene.cameras import Cameras

_COLOR_EMPHASIS = 5.0
"""Weight of colours beside relative distances in the fit of the SDF. [choice]"""

_LEVEL_SHARES = (0.02, 0.98)
"""Lowest and highest candidate level, shares of the largest density that a ray meets. [choice]"""

_LARGEST_GAP = 0.1
"""World units at which a level's error of distance is cut; such an error counts as much as no overlap of masks. [choice]"""

_NEAR_STEPS = 1.5
"""Standard deviation of the fit's points around the surface, lattice steps. [choice]"""

_DISTANCE_SOFTNESS = 0.02
"""World units added to the true distance before the fit's errors are taken relative to it. [choice]"""

_LAST_RATE = 0.1
"""Share of the learning rate that is left at the end of the fit. [choice]"""

_POINTS_AT_ONCE = 2**18
"""Points evaluated at once, for the memory's sake; results do not depend on it."""


class EmptyFieldError(ValueError):
    """Nothing in a field is solid enough to have a surface; the message says what was found and what to try."""


@dataclass(frozen=True)
class SignedDistanceGrid:
    """Signed distances (R, R, R), world units, negative inside, at points that fill [-half_size, half_size]^3, axes x, y, z.

    level: the density that was taken as the surface. surface: points on it, world frame.
    """

    values: Float[Tensor, "r r r"]
    surface: Float[Tensor, "v 3"]
    level: float
    half_size: float

    def at(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Trilinear values; points outside take the value at the box's side."""
        return sample_lattice(self.values, points, self.half_size)


@dataclass(frozen=True)
class LevelSetSizes:
    """How a level set is looked for.

    resolution: lattice points of a side. smoothing: Gaussian blur in lattice steps, of the densities and of the distances. step_size,
    n_levels: see `automatic_level`. min_component_share: of the largest component, below which one is dropped. faint_agreement: see
    `with_faint_parts`.
    """

    resolution: int
    smoothing: float
    step_size: float
    n_levels: int
    min_component_share: float
    faint_agreement: float


@dataclass(frozen=True)
class FitReport:
    """How far the fitted field is from its target: |sdf| on the target's surface, mean and largest, world units; mean colour
    error."""

    mean_deviation: float
    max_deviation: float
    color_error: float


@torch.no_grad()
def density_lattice(field: DensityField, occupancy: OccupancyGrid, resolution: int) -> Float[Tensor, "r r r"]:
    """Densities on a lattice, 0 in empty cells, as the renderer sees them."""
    values = []
    for part in lattice_points(resolution, occupancy.half_size, occupancy.values.device).split(_POINTS_AT_ONCE):
        occupied = occupancy.at_steps(part, torch.zeros_like(part), part.new_zeros(len(part), 1))[:, 0]
        values.append(part.new_zeros(len(part)).masked_scatter(occupied, field.density(part[occupied])))
    return torch.cat(values).view((resolution,) * 3)


def _blurred(values: Tensor, smoothing: float) -> Tensor:
    """A Gaussian of `smoothing` lattice steps over a lattice."""
    return torch.from_numpy(ndimage.gaussian_filter(values.cpu().numpy(), smoothing)).to(values.device)


def _first_crossing(along: Tensor, t: Tensor, level: float, step_size: float) -> Tensor:
    """Distance at which each ray's values (R, S) first rise above a level, interpolated between steps; meaningless where none
    does."""
    index = (along > level).int().argmax(dim=1, keepdim=True)
    above, below = along.gather(1, index), along.gather(1, (index - 1).clamp(min=0))
    share = (above - level) / (above - below).clamp(min=1e-9)
    return (t.gather(1, index) - share.clamp(0, 1) * step_size * (index > 0))[:, 0]


@torch.no_grad()
def automatic_level(
    densities: Float[Tensor, "r r r"],
    blurred: Float[Tensor, "r r r"],
    half_size: float,
    cameras: Cameras,
    step_size: float,
    n_levels: int,
) -> float:
    """The density whose level set of the blurred field looks most like the field itself, seen through `cameras`.

    The field's own surface is where a ray has lost half of its light; its mask is where a ray does so at all. Every candidate
    level (log-spaced from 2 % to 98 % of the largest density that a ray meets) gives a silhouette and a first crossing along
    each ray. The best has the highest mask IoU minus mean |difference of distance| where both hit, in units of 0.1 world units,
    cut at 1 (docs/choices.md). Raises EmptyFieldError if no ray loses half of its light.
    """
    t, (seen, along) = lattice_along_rays([densities, blurred], half_size, cameras, step_size)
    optical_depth = seen.cumsum(dim=1) * step_size
    solid = optical_depth[:, -1] > math.log(2)
    if not bool(solid.any()):
        raise EmptyFieldError(
            f"the density field is nowhere half opaque (highest opacity {1 - math.exp(-float(optical_depth.max())):.3f}): "
            "train the nerf stage longer, or lower its sparsity weight"
        )
    median = _first_crossing(optical_depth, t, math.log(2), step_size)
    top = float(along.max())
    levels = np.geomspace(_LEVEL_SHARES[0] * top, _LEVEL_SHARES[1] * top, n_levels).tolist()
    return max(
        levels, key=lambda level: _likeness(along=along, t=t, level=level, step_size=step_size, solid=solid, median=median)
    )


def _likeness(along: Tensor, t: Tensor, level: float, step_size: float, solid: Tensor, median: Tensor) -> float:
    """The score of `automatic_level`."""
    hit = (along > level).any(dim=1)
    both = hit & solid
    if not bool(both.any()):
        return -math.inf
    error = (_first_crossing(along, t, level, step_size) - median)[both].abs().clamp(max=_LARGEST_GAP).mean() / _LARGEST_GAP
    return float(both.sum() / (hit | solid).sum() - error)


def solid_from_density(
    densities: Float[Tensor, "r r r"], level: float, min_component_share: float
) -> Bool[np.ndarray, "r r r"]:
    """Cells above the level, closed cavities filled, components smaller than a share of the largest dropped.

    Raises EmptyFieldError if nothing is above the level.
    """
    solid = _inside_box(ndimage.binary_fill_holes(densities.cpu().numpy() > level))
    if not solid.any():
        raise EmptyFieldError(
            f"no density above the level {level:.4g} (highest {float(densities.max()):.4g}): train the nerf stage longer"
        )
    return _large_components(solid, min_component_share)


def _inside_box(solid: Bool[np.ndarray, "r r r"]) -> Bool[np.ndarray, "r r r"]:
    """Without the outermost points: the surface has to close inside the box."""
    inner = np.zeros_like(solid)
    inner[1:-1, 1:-1, 1:-1] = solid[1:-1, 1:-1, 1:-1]
    return inner


def _large_components(solid: Bool[np.ndarray, "r r r"], min_share: float) -> Bool[np.ndarray, "r r r"]:
    """Without components below a share of the largest."""
    labels, _ = ndimage.label(solid)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= min_share * sizes.max())[labels] & solid


def sdf_from_density(
    field: DensityField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    sizes: LevelSetSizes,
    thin_parts: ThinPartsSizes,
    outlined: Smoothing,
) -> SignedDistanceGrid:
    """Signed distances to the automatic level set of a density field.

    cameras: see `automatic_level`. thin_parts: see `with_faint_parts`, which looks through the smoothing's cameras. outlined: the
    smoothing that leaves outlines alone. Raises EmptyFieldError.
    """
    half_size = occupancy.half_size
    densities = density_lattice(field, occupancy, sizes.resolution)
    blurred = _blurred(densities, sizes.smoothing)
    level = automatic_level(
        densities=densities,
        blurred=blurred,
        half_size=half_size,
        cameras=cameras,
        step_size=sizes.step_size,
        n_levels=sizes.n_levels,
    )
    solid = solid_from_density(blurred, level, sizes.min_component_share)
    whole = with_faint_parts(
        densities=densities,
        solid=solid,
        level=level,
        half_size=half_size,
        cameras=outlined.cameras,
        step_size=sizes.step_size,
        agreement=sizes.faint_agreement,
        sizes=thin_parts,
    )
    # What hangs on nothing is dropped again. Around a solid point below the level the surface lies half-way to an empty one or farther.
    solid = _large_components(_inside_box(whole), sizes.min_component_share)
    raised = torch.from_numpy(solid).to(blurred.device) & (blurred <= level)
    blurred = blurred.masked_fill(raised, 2 * level)
    spacing = 2 * half_size / (sizes.resolution - 1)
    signed = signed_distances(blurred.cpu().numpy(), solid, level) * spacing
    signed = smoothed_within_outlines(signed, half_size, outlined)
    signed = ndimage.gaussian_filter(signed, sizes.smoothing)
    if signed.min() >= 0:
        raise EmptyFieldError("the solid part of the density field is thinner than a lattice step: raise the resolution")
    vertices = marching_cubes(signed, 0.0, spacing=(spacing,) * 3)[0] - half_size
    device = densities.device
    return SignedDistanceGrid(
        torch.from_numpy(signed).float().to(device), torch.from_numpy(vertices.copy()).float().to(device), level, half_size
    )


def fit_sdf(
    field: SdfField,
    target: SignedDistanceGrid,
    color_of: Callable[[Tensor], Tensor],
    steps: int,
    batch: int,
    learning_rate: float,
    generator: torch.Generator,
) -> FitReport:
    """Fit an SDF field to a grid of distances, and to colours: those that `color_of` gives points (N, 3), as (N, 3).

    Half of a batch lies within three lattice steps of the surface, half anywhere in the box; errors of distance count by their
    absolute value, relative to 0.02 + |distance|, so that the surface comes first. Colours are asked on the
    surface and learned on both of its sides. Adam, with the learning rate falling to a tenth.
    """
    device, spacing = target.surface.device, 2 * target.half_size / (len(target.values) - 1)
    optimizer = torch.optim.Adam(field.network.parameters(), lr=learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON)
    color_error = torch.zeros((), device=device)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _LAST_RATE ** (step / steps)
        anchors = target.surface[torch.randint(len(target.surface), (batch // 2,), generator=generator, device=device)]
        near = anchors + torch.randn(anchors.shape, generator=generator, device=device) * spacing * _NEAR_STEPS
        anywhere = (torch.rand(anchors.shape, generator=generator, device=device) * 2 - 1) * target.half_size
        points = torch.cat([near, anywhere])
        wanted = target.at(points)
        with torch.no_grad():
            wanted_colors = color_of(anchors)
        sdf, colors = field(points)
        sdf_loss = ((sdf - wanted).abs() / (_DISTANCE_SOFTNESS + wanted.abs())).mean()
        color_error = (colors[: len(near)] - wanted_colors).abs().mean()
        optimizer.zero_grad()
        (sdf_loss + _COLOR_EMPHASIS * color_error).backward()
        optimizer.step()
    with torch.no_grad():
        deviation = torch.cat([field.sdf(part).abs() for part in target.surface.split(_POINTS_AT_ONCE)])
    return FitReport(float(deviation.mean()), float(deviation.max()), float(color_error.detach()))
