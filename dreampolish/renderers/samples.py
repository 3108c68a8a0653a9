"""Where a ray is sampled: only in occupied space, in even steps, or where the weight is (importance).

Notation: R rays with unit directions, N samples of all rays in one flat list, ordered by ray and by distance. t is the distance
along the ray. `slots` numbers a ray's samples from 0, so that (ray_indices, slots) addresses a dense (R, S) array for nerfacc's
dense functions.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dreampolish.fields.occupancy import OccupancyGrid, t_range_from_box
from dreampolish.kernels.marched import Marched


@dataclass(frozen=True)
class RaySamples:
    """N samples on R rays; see the module's notation. points: middles of [t_starts, t_ends], world frame."""

    ray_indices: Int[Tensor, " n"]
    slots: Int[Tensor, " n"]
    t_starts: Float[Tensor, " n"]
    t_ends: Float[Tensor, " n"]
    points: Float[Tensor, "n 3"]
    n_rays: int

    def keep(self, mask: Bool[Tensor, " n"]) -> "RaySamples":
        """The samples where the mask is true, in their old slots."""
        kept = mask.nonzero()[:, 0]
        return RaySamples(
            ray_indices=self.ray_indices[kept],
            slots=self.slots[kept],
            t_starts=self.t_starts[kept],
            t_ends=self.t_ends[kept],
            points=self.points[kept],
            n_rays=self.n_rays,
        )

    @cached_property
    def n_slots(self) -> int:
        """Length of the dense array's second axis (0 without samples)."""
        return int(self.slots.max()) + 1 if len(self.slots) else 0

    def dense(self, values: Float[Tensor, " n"]) -> Float[Tensor, "r s"]:
        """Per-sample values as (R, S), zero where a ray has no sample; differentiable."""
        empty = values.new_zeros(self.n_rays * self.n_slots)
        return empty.index_copy(0, self.ray_indices * self.n_slots + self.slots, values).view(self.n_rays, self.n_slots)

    def packed(self, values: Float[Tensor, "r s"]) -> Float[Tensor, " n"]:
        """The inverse of `dense`."""
        return values.reshape(-1).index_select(0, self.ray_indices * self.n_slots + self.slots)


@torch.no_grad()
def sample_rays(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    occupancy: OccupancyGrid,
    step_size: float,
    generator: torch.Generator | None,
) -> RaySamples:
    """Even steps through the box of the occupied cells, those in empty cells left out.

    step_size: world units. generator: shifts each ray's steps by a random part of a step (stratified); None: centred,
    reproducible.
    """
    near, far = t_range_from_box(origins, directions, *occupancy.bounds())
    given = (
        torch.rand(len(origins), generator=generator, device=origins.device) if generator is not None else near.new_tensor(0.5)
    )
    spans = torch.stack([near, far, given.expand_as(near)])
    steps_of = march_in_occupancy if origins.dtype == torch.float32 else steps_by_torch
    steps = steps_of(torch.stack([origins, directions]), spans, occupancy, step_size)
    return RaySamples(
        ray_indices=steps.ray_indices,
        slots=steps.slots,
        t_starts=steps.t - step_size / 2,
        t_ends=steps.t + step_size / 2,
        points=steps.points,
        n_rays=len(origins),
    )


def march_in_occupancy(rays: Tensor, spans: Tensor, occupancy: OccupancyGrid, step_size: float) -> Marched:
    """The kernel, on an occupancy grid."""
    from dreampolish.kernels.ray_marching import march  # warp

    cube = occupancy.occupied.view(occupancy.resolution, occupancy.resolution, occupancy.resolution)
    return march(rays, spans, cube, half_size=occupancy.half_size, step=step_size)


def steps_by_torch(rays: Tensor, spans: Tensor, occupancy: OccupancyGrid, step_size: float) -> Marched:
    """What `march` does, in plain torch, in any precision."""
    (origins, directions), (near, far, shift) = rays, spans
    hit = (far > near).nonzero()[:, 0]
    longest = float((far - near)[hit].max()) if len(hit) else 0.0
    n_steps = math.ceil(longest / step_size)
    t = near[hit, None] + (torch.arange(n_steps, device=rays.device) + shift[hit, None]) * step_size
    inside = occupancy.at_steps(origins[hit], directions[hit], t) & (t < far[hit, None])
    row, column = inside.nonzero(as_tuple=True)
    slots = (inside.cumsum(dim=1) - 1)[row, column]
    middle, chosen = t[row, column], hit[row]
    points = torch.addcmul(origins[chosen], directions[chosen], middle[:, None])
    return Marched(ray_indices=chosen, slots=slots, t=middle, points=points)


def split_samples(
    samples: RaySamples, parts: int, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]
) -> RaySamples:
    """Every sample's interval cut into equal parts, slots numbered anew without holes.

    After `keep` with a mask of the samples that carry weight this is hierarchical sampling (source: NeRF, Section 5.2) without
    its chance: no part of a surface falls between two samples, however long a ray grazes it.
    """
    length = ((samples.t_ends - samples.t_starts) / parts).repeat_interleave(parts)
    index = torch.arange(parts, device=origins.device).repeat(len(samples.slots))
    starts = samples.t_starts.repeat_interleave(parts) + index * length
    rays = samples.ray_indices.repeat_interleave(parts)
    counts = torch.bincount(rays, minlength=samples.n_rays)
    slots = torch.arange(len(rays), device=origins.device) - (counts.cumsum(0) - counts)[rays]
    points = torch.addcmul(origins[rays], directions[rays], (starts + length / 2)[:, None])
    return RaySamples(
        ray_indices=rays, slots=slots, t_starts=starts, t_ends=starts + length, points=points, n_rays=samples.n_rays
    )
