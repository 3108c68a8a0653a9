"""Kernels of the multiresolution hash grid (source: Instant-NGP, arXiv:2201.05989). The meaning of everything, and a twin of all of it
in plain torch, is in `dreampolish/fields/hash_grid.py`.

Notation: N points, L levels, C features a level. Launches are level-major, (L, N), so that a level's table stays in the cache.
`rows` and the kernels' `levels` have one row a level: cells of a side, strides of y and z, mask (0: a dense level), first entry of
the table.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from dreampolish.kernels.runtime import MODULE, launch_rows

vec8 = wp.types.vector(length=8, dtype=wp.float32)
index8 = wp.types.vector(length=8, dtype=wp.int32)


@dataclass(frozen=True)
class Levels:
    """Where the levels lie. rows: int32 (L, 5), see the module. side: of the box, world units."""

    rows: Tensor
    side: float


@wp.func
@no_type_check
def _point(points: wp.array2d(dtype=wp.float32), n: wp.int32) -> wp.vec3:
    """The n-th point."""
    return wp.vec3(points[n, 0], points[n, 1], points[n, 2])


@wp.func
@no_type_check
def _place(point: wp.vec3, side: wp.float32, cells: wp.float32) -> wp.vec3:
    """A point in cells of the level; outside goes to the box's side, NaN stays NaN."""
    place = wp.vec3()
    for axis in range(3):
        unit = point[axis] / side + 0.5
        if unit < 0.0:
            unit = 0.0
        if unit > 1.0:
            unit = 1.0
        place[axis] = unit * cells
    return place


@wp.func
@no_type_check
def _cell(place: wp.vec3, cells: wp.float32) -> wp.vec3:
    """The cell that a place lies in; 0 for NaN."""
    found = wp.vec3()
    for axis in range(3):
        cell = wp.floor(place[axis])
        if cell > cells - 1.0:
            cell = cells - 1.0
        if not (cell >= 0.0):
            cell = 0.0
        found[axis] = cell
    return found


@wp.func
@no_type_check
def _corners(cell: wp.vec3, levels: wp.array2d(dtype=wp.int32), level: wp.int32) -> index8:
    """Entries of a cell's corners, x fastest."""
    stride_y = wp.uint32(levels[level, 1])
    stride_z = wp.uint32(levels[level, 2])
    mask = wp.uint32(levels[level, 3])
    offset = levels[level, 4]
    x0 = wp.uint32(cell[0])
    x1 = x0 + wp.uint32(1)
    y0 = wp.uint32(cell[1]) * stride_y
    y1 = y0 + stride_y
    z0 = wp.uint32(cell[2]) * stride_z
    z1 = z0 + stride_z
    if mask == wp.uint32(0):
        return index8(
            offset + wp.int32(x0 + y0 + z0),
            offset + wp.int32(x1 + y0 + z0),
            offset + wp.int32(x0 + y1 + z0),
            offset + wp.int32(x1 + y1 + z0),
            offset + wp.int32(x0 + y0 + z1),
            offset + wp.int32(x1 + y0 + z1),
            offset + wp.int32(x0 + y1 + z1),
            offset + wp.int32(x1 + y1 + z1),
        )
    return index8(
        offset + wp.int32((x0 ^ y0 ^ z0) & mask),
        offset + wp.int32((x1 ^ y0 ^ z0) & mask),
        offset + wp.int32((x0 ^ y1 ^ z0) & mask),
        offset + wp.int32((x1 ^ y1 ^ z0) & mask),
        offset + wp.int32((x0 ^ y0 ^ z1) & mask),
        offset + wp.int32((x1 ^ y0 ^ z1) & mask),
        offset + wp.int32((x0 ^ y1 ^ z1) & mask),
        offset + wp.int32((x1 ^ y1 ^ z1) & mask),
    )


@wp.func
@no_type_check
def _product(x: wp.vec2, y: wp.vec2, z: wp.vec2) -> vec8:
    """Products of a factor an axis, for the eight corners, x fastest: weights, or their slopes along an axis."""
    a = z[0] * y[0]
    b = z[0] * y[1]
    c = z[1] * y[0]
    d = z[1] * y[1]
    return vec8(a * x[0], a * x[1], b * x[0], b * x[1], c * x[0], c * x[1], d * x[0], d * x[1])


@wp.func
@no_type_check
def _pair(fraction: wp.float32) -> wp.vec2:
    """Weights of the lower and the upper side."""
    return wp.vec2(1.0 - fraction, fraction)


@wp.func
@no_type_check
def _weights(inside: wp.vec3) -> vec8:
    """Trilinear weights of a cell's corners for a place inside it, 0..1 an axis."""
    return _product(_pair(inside[0]), _pair(inside[1]), _pair(inside[2]))


@wp.func
@no_type_check
def _slopes(inside: wp.vec3, scale: wp.float32):
    """Derivatives of the weights along x, y and z. scale: cells a world unit."""
    x = _pair(inside[0])
    y = _pair(inside[1])
    z = _pair(inside[2])
    slope = wp.vec2(-scale, scale)
    return _product(slope, y, z), _product(x, slope, z), _product(x, y, slope)


@wp.func
@no_type_check
def _located(
    point: wp.vec3,
    levels: wp.array2d(dtype=wp.int32),
    level: wp.int32,
    side: wp.float32,
):
    """Entries of the corners of a point's cell, and where in the cell it lies."""
    cells = wp.float32(levels[level, 0])
    place = _place(point, side, cells)
    cell = _cell(place, cells)
    return _corners(cell, levels, level), place - cell


@wp.func
@no_type_check
def _read(table: wp.array2d(dtype=wp.float32), channel: wp.int32, index: index8) -> vec8:
    """A channel of eight entries."""
    values = vec8()
    for corner in range(8):
        values[corner] = table[channel, index[corner]]
    return values


@wp.func
@no_type_check
def _add(table: wp.array2d(dtype=wp.float32), channel: wp.int32, index: index8, values: vec8):
    """Add to a channel of eight entries."""
    for corner in range(8):
        wp.atomic_add(table, channel, index[corner], values[corner])


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _features(
    points: wp.array2d(dtype=wp.float32),
    table: wp.array2d(dtype=wp.float32),
    levels: wp.array2d(dtype=wp.int32),
    side: wp.float32,
    features: wp.array3d(dtype=wp.float32),
    first: wp.int32,
):
    """features (L, C, N)."""
    row, n = wp.tid()
    level = row + first
    index, inside = _located(_point(points, n), levels, level, side)
    weight = _weights(inside)
    for channel in range(table.shape[0]):
        features[level, channel, n] = wp.dot(weight, _read(table, channel, index))


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _features_and_jacobian(
    points: wp.array2d(dtype=wp.float32),
    table: wp.array2d(dtype=wp.float32),
    levels: wp.array2d(dtype=wp.int32),
    side: wp.float32,
    result: wp.array4d(dtype=wp.float32),
    first: wp.int32,
):
    """result (4, L, C, N): features, then their derivatives along x, y, z."""
    row, n = wp.tid()
    level = row + first
    index, inside = _located(_point(points, n), levels, level, side)
    weight = _weights(inside)
    along_x, along_y, along_z = _slopes(inside, wp.float32(levels[level, 0]) / side)
    for channel in range(table.shape[0]):
        values = _read(table, channel, index)
        result[0, level, channel, n] = wp.dot(weight, values)
        result[1, level, channel, n] = wp.dot(along_x, values)
        result[2, level, channel, n] = wp.dot(along_y, values)
        result[3, level, channel, n] = wp.dot(along_z, values)


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _table_gradient(
    points: wp.array2d(dtype=wp.float32),
    grad_features: wp.array3d(dtype=wp.float32),
    levels: wp.array2d(dtype=wp.int32),
    side: wp.float32,
    grad_table: wp.array2d(dtype=wp.float32),
    first: wp.int32,
):
    """grad_table (C, entries), added to, from grad_features (L, C, N)."""
    row, n = wp.tid()
    level = row + first
    index, inside = _located(_point(points, n), levels, level, side)
    weight = _weights(inside)
    for channel in range(grad_table.shape[0]):
        _add(grad_table, channel, index, weight * grad_features[level, channel, n])


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _table_gradient_with_jacobian(
    points: wp.array2d(dtype=wp.float32),
    grad_features: wp.array3d(dtype=wp.float32),
    grad_jacobian: wp.array4d(dtype=wp.float32),
    levels: wp.array2d(dtype=wp.int32),
    side: wp.float32,
    grad_table: wp.array2d(dtype=wp.float32),
    first: wp.int32,
):
    """grad_table (C, entries), added to, from grad_features (L, C, N) and grad_jacobian (3, L, C, N)."""
    row, n = wp.tid()
    level = row + first
    index, inside = _located(_point(points, n), levels, level, side)
    weight = _weights(inside)
    along_x, along_y, along_z = _slopes(inside, wp.float32(levels[level, 0]) / side)
    for channel in range(grad_table.shape[0]):
        value = weight * grad_features[level, channel, n]
        value += along_x * grad_jacobian[0, level, channel, n]
        value += along_y * grad_jacobian[1, level, channel, n]
        value += along_z * grad_jacobian[2, level, channel, n]
        _add(grad_table, channel, index, value)


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _table_gradient_with_direction(
    points: wp.array2d(dtype=wp.float32),
    grad_features: wp.array3d(dtype=wp.float32),
    pull: wp.array3d(dtype=wp.float32),
    directions: wp.array2d(dtype=wp.float32),
    levels: wp.array2d(dtype=wp.int32),
    side: wp.float32,
    grad_table: wp.array2d(dtype=wp.float32),
    first: wp.int32,
):
    """grad_table (C, entries), added to, from grad_features (L, C, N) and from the Jacobian's, which is pull (L, C, N) times
    directions (N, 3)."""
    row, n = wp.tid()
    level = row + first
    index, inside = _located(_point(points, n), levels, level, side)
    weight = _weights(inside)
    along_x, along_y, along_z = _slopes(inside, wp.float32(levels[level, 0]) / side)
    along = along_x * directions[n, 0] + along_y * directions[n, 1] + along_z * directions[n, 2]
    for channel in range(grad_table.shape[0]):
        value = weight * grad_features[level, channel, n] + along * pull[level, channel, n]
        _add(grad_table, channel, index, value)


def encode(points: Tensor, table: Tensor, levels: Levels, *, with_jacobian: bool) -> Tensor:
    """Features, and on request their derivatives along x, y, z: (1, L, C, N) or (4, L, C, N). Without a graph."""
    shape = (len(levels.rows), len(points))
    result = table.new_empty(4 if with_jacobian else 1, len(levels.rows), len(table), len(points))
    kernel: Any = _features_and_jacobian if with_jacobian else _features
    target = result if with_jacobian else result[0]
    launch_rows(kernel, shape, (points, table, levels.rows, levels.side, target))
    return result


def table_gradient(
    points: Tensor, table: Tensor, levels: Levels, *, features: Tensor, along: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The table's gradient (C, entries) from that of the features (L, C, N), and from that of the Jacobian where it is a product, per
    point, of along[0] (L, C, N) and along[1] (N, 3).
    """
    n_levels, n_points = len(levels.rows), len(points)
    result = torch.zeros_like(table)
    layout = (n_levels, len(table), n_points)
    if along is None:
        launch_rows(_table_gradient, (n_levels, n_points), (points, features.view(layout), levels.rows, levels.side, result))
    else:
        given = (points, features.view(layout), along[0].view(layout), along[1], levels.rows, levels.side, result)
        launch_rows(_table_gradient_with_direction, (n_levels, n_points), given)
    return result


class Encode(torch.autograd.Function):
    """Features (L, C, N) and, on request, their derivatives along the axes (3, L, C, N), else (0, L, C, N).

    The same as the twin in plain torch, in float32. Gradients of the table are exact for both; the points get the features' alone.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, points: Tensor, table: Tensor, levels: Levels, with_jacobian: bool) -> tuple[Tensor, Tensor]:
        """points (N, 3), table (C, entries), both float32 and on the levels' device."""
        points, table = points.detach().contiguous(), table.detach().contiguous()
        result = encode(points, table, levels, with_jacobian=with_jacobian)
        ctx.save_for_backward(points, table)
        ctx.levels, ctx.with_jacobian = levels, with_jacobian  # type: ignore[attr-defined]
        return result[0], result[1:]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, grad_features: Tensor, grad_jacobian: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Of both outputs to the table, of the features to the points."""
        points, table = ctx.saved_tensors  # type: ignore[attr-defined]
        needs_points, needs_table = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        levels: Levels = ctx.levels  # type: ignore[attr-defined]
        grad_features = grad_features.contiguous()
        grad_points = grad_table = None
        if needs_points:
            result = encode(points, table, levels, with_jacobian=True)
            grad_points = (result[1:] * grad_features).sum(dim=(1, 2)).t()
        if needs_table:
            if ctx.with_jacobian:  # type: ignore[attr-defined]
                grad_table = torch.zeros_like(table)
                given = (points, grad_features, grad_jacobian.contiguous(), levels.rows, levels.side, grad_table)
                launch_rows(_table_gradient_with_jacobian, (len(levels.rows), len(points)), given)
            else:
                grad_table = table_gradient(points, table, levels, features=grad_features, along=None)
        return grad_points, grad_table, None, None
