"""Volume rendering of a density field: emission and absorption along rays (source: NeRF, arXiv:2003.08934, Eq. 3)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor

from dreampolish.fields.density import DensityField
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.renderers.samples import RaySamples, sample_rays
from dreampolish.scene.cameras import Cameras, normals_camera_from_world, rays_from_cameras

_SLOTS_AT_ONCE = {"cpu": 5, "cuda": 32}
"""Samples of a ray that early termination evaluates before it asks again which rays go on, by kind of device: a GPU waits each time."""


@dataclass(frozen=True)
class SampleRecord:
    """What the regularisers ask of the N samples behind a picture.

    rays: where they lie. weights: share of the pixel that the sample gives. directions: unit, of the sample's ray. normals: unit,
    world, or None.
    """

    rays: RaySamples
    weights: Float[Tensor, " n"]
    directions: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"] | None


@dataclass(frozen=True)
class VolumeRender:
    """Pictures of a field, differentiable in its parameters.

    rgb: over the background, in [0, 1]. opacity: in [0, 1]. depth: expected, along the viewing axis, world units, given that
    the ray is stopped; 0 where nothing is. normals_camera: unit where opacity is positive, else 0; None if not asked for.
    """

    rgb: Float[Tensor, "b h w 3"]
    opacity: Float[Tensor, "b h w"]
    depth: Float[Tensor, "b h w"]
    normals_camera: Float[Tensor, "b h w 3"] | None
    samples: SampleRecord


def weights_from_densities(
    samples: RaySamples, densities: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Each sample's weight T (1 - exp(-density * length)) and the transmittance T before it, by nerfacc's dense function."""
    if not len(densities):
        return densities, densities
    weights, transmittance, _ = render_weight_from_density(
        samples.dense(samples.t_starts), samples.dense(samples.t_ends), samples.dense(densities)
    )
    return samples.packed(weights), samples.packed(transmittance)


def visible_samples(samples: RaySamples, field: DensityField, min_transmittance: float) -> RaySamples:
    """Early termination: drop the samples that light hardly reaches. Evaluates densities without a graph, front to back, a few
    at a time.

    Warning: what is hidden gets no gradient; with min_transmittance 1e-2 or less that is beyond notice.
    """
    limit = -math.log(min_transmittance)
    at_once = _SLOTS_AT_ONCE[samples.t_starts.device.type]
    depth = samples.t_starts.new_zeros(samples.n_rays)  # optical depth up to the current group of slots
    keep = torch.zeros_like(samples.ray_indices, dtype=torch.bool)
    with torch.no_grad():
        for first in range(0, samples.n_slots, at_once):
            group = (samples.slots >= first) & (samples.slots < first + at_once) & (depth < limit)[samples.ray_indices]
            chosen = group.nonzero()[:, 0]
            rays, columns = samples.ray_indices[chosen], samples.slots[chosen] - first
            lengths = (samples.t_ends - samples.t_starts)[chosen]
            slices = depth.new_zeros(samples.n_rays, at_once)
            slices[rays, columns] = field.density(samples.points[chosen]) * lengths
            behind = depth[:, None] + slices.cumsum(dim=1)
            keep[chosen] = (behind - slices)[rays, columns] < limit
            depth = behind[:, -1]
    return samples.keep(keep)


def composite(
    cameras: Cameras,
    directions: Float[Tensor, "r 3"],
    record: SampleRecord,
    t: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    background: Float[Tensor, "3"],
) -> VolumeRender:
    """Sum weighted samples into pictures. t: distance of the samples along their rays."""
    shape = (len(cameras), cameras.size, cameras.size)

    def accumulate(values: Tensor | None) -> Tensor:
        return accumulate_along_rays(record.weights, values, record.rays.ray_indices, len(directions))

    opacity = accumulate(None)
    backward = cameras.world_from_camera[:, :3, 2]
    axial = -(directions.view(len(cameras), -1, 3) * backward[:, None]).sum(dim=-1).reshape(-1, 1)
    depth = accumulate(t[:, None]) * axial / opacity.clamp(min=1e-6)
    rgb = accumulate(colors) + (1 - opacity) * background
    normals = None
    if record.normals is not None:
        normals_world = torch.nn.functional.normalize(accumulate(record.normals), dim=-1, eps=1e-6)
        normals = normals_camera_from_world(normals_world.view(*shape, 3), cameras)
    return VolumeRender(
        rgb=rgb.view(*shape, 3), opacity=opacity.view(shape), depth=depth.view(shape), normals_camera=normals, samples=record
    )


def render_density(
    field: DensityField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    step_size: float,
    min_transmittance: float,
    background: Float[Tensor, "3"],
    with_normals: bool,
    generator: torch.Generator | None,
) -> VolumeRender:
    """Pictures of a density field through every camera.

    step_size: world units. min_transmittance: where rays end, 0 for never (see `visible_samples`). with_normals: costs about as
    much again. generator: stratified sampling; None gives the same picture every time.
    """
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(cameras))
    samples = sample_rays(origins=origins, directions=directions, occupancy=occupancy, step_size=step_size, generator=generator)
    if min_transmittance > 0:
        samples = visible_samples(samples, field, min_transmittance)
    normals = None
    if with_normals:
        densities, colors, normals = field.with_normals(samples.points)
    else:
        densities, colors = field(samples.points)
    weights, _ = weights_from_densities(samples, densities)
    record = SampleRecord(samples, weights, directions[samples.ray_indices], normals)
    return composite(
        cameras=cameras,
        directions=directions,
        record=record,
        t=(samples.t_starts + samples.t_ends) / 2,
        colors=colors,
        background=background,
    )
