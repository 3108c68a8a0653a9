"""Even steps along rays, those in empty cells left out. Twin in plain torch: `steps_by_torch` in `dreampolish/renderers/samples.py`."""

from typing import no_type_check

import torch
import warp as wp
from torch import Tensor

from dreampolish.kernels.marched import Marched
from dreampolish.kernels.runtime import MODULE, launch


@wp.func
@no_type_check
def _is_occupied(point: wp.vec3, occupied: wp.array3d(dtype=wp.uint8), half_size: wp.float32) -> wp.bool:
    """Whether a point lies in an occupied cell; one outside takes the nearest cell's answer."""
    resolution = occupied.shape[0]
    scale = wp.float32(resolution) / (2.0 * half_size)
    cell = wp.vec3i()
    for axis in range(3):
        cell[axis] = wp.clamp(wp.int32((point[axis] + half_size) * scale), 0, resolution - 1)
    return occupied[cell[0], cell[1], cell[2]] != wp.uint8(0)


@wp.func
@no_type_check
def _point(rays: wp.array3d(dtype=wp.float32), ray: wp.int32, t: wp.float32) -> wp.vec3:
    """A ray's point at the distance t."""
    origin = wp.vec3(rays[0, ray, 0], rays[0, ray, 1], rays[0, ray, 2])
    return origin + wp.vec3(rays[1, ray, 0], rays[1, ray, 1], rays[1, ray, 2]) * t


@wp.func
@no_type_check
def _middle(spans: wp.array2d(dtype=wp.float32), ray: wp.int32, index: wp.int32, step: wp.float32) -> wp.float32:
    """The distance of a ray's step."""
    return spans[0, ray] + (wp.float32(index) + spans[2, ray]) * step


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _count(
    rays: wp.array3d(dtype=wp.float32),
    spans: wp.array2d(dtype=wp.float32),
    occupied: wp.array3d(dtype=wp.uint8),
    half_size: wp.float32,
    step: wp.float32,
    counts: wp.array(dtype=wp.int64),
    first: wp.int32,
):
    """counts (R): steps of a ray. rays (2, R, 3): origins and directions. spans (3, R): near, far, shift."""
    _, ray = wp.tid()
    found = wp.int64(0)
    index = wp.int32(0)
    t = _middle(spans, ray, index, step)
    while t < spans[1, ray]:
        if _is_occupied(_point(rays, ray, t), occupied, half_size):
            found += wp.int64(1)
        index += 1
        t = _middle(spans, ray, index, step)
    counts[ray] = found


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _write(
    rays: wp.array3d(dtype=wp.float32),
    spans: wp.array2d(dtype=wp.float32),
    occupied: wp.array3d(dtype=wp.uint8),
    half_size: wp.float32,
    step: wp.float32,
    starts: wp.array(dtype=wp.int64),
    indices: wp.array2d(dtype=wp.int64),
    places: wp.array2d(dtype=wp.float32),
    first: wp.int32,
):
    """indices (2, N): ray and slot. places (N, 4): point and t. starts (R): where a ray's steps begin."""
    _, ray = wp.tid()
    begin = starts[ray]
    slot = wp.int64(0)
    index = wp.int32(0)
    t = _middle(spans, ray, index, step)
    while t < spans[1, ray]:
        point = _point(rays, ray, t)
        if _is_occupied(point, occupied, half_size):
            place = begin + slot
            indices[0, place] = wp.int64(ray)
            indices[1, place] = slot
            places[place, 0] = point[0]
            places[place, 1] = point[1]
            places[place, 2] = point[2]
            places[place, 3] = t
            slot += wp.int64(1)
        index += 1
        t = _middle(spans, ray, index, step)


def march(rays: Tensor, spans: Tensor, occupied: Tensor, half_size: float, step: float) -> Marched:
    """The steps of rays through occupied cells.

    rays: (2, R, 3), origins and unit directions. spans: (3, R), distances of entering and leaving and the share of a step by which a ray's
    steps are shifted; a ray that leaves before it enters has none. occupied: bool, a cube over [-half_size, half_size]^3. step: above 0.
    """
    rays, spans = rays.contiguous(), spans.contiguous()
    cells = occupied.contiguous().view(torch.uint8)
    counts = torch.zeros(rays.shape[1], dtype=torch.int64, device=rays.device)
    launch(_count, rays.shape[1], (rays, spans, cells, half_size, step, counts))
    ends = counts.cumsum(dim=0)
    n_steps = int(ends[-1]) if len(ends) else 0
    indices = counts.new_empty(2, n_steps)
    places = rays.new_empty(n_steps, 4)
    launch(_write, rays.shape[1], (rays, spans, cells, half_size, step, ends - counts, indices, places))
    return Marched(ray_indices=indices[0], slots=indices[1], t=places[:, 3].contiguous(), points=places[:, :3].contiguous())
