"""A multiresolution hash grid (source: Instant-NGP, arXiv:2201.05989), with hand-written gradients.

In float32 the kernels of `dreampolish/kernels/hash_grid.py` do the work. In any other precision their twin in plain torch does, which
is also what the kernels are tested against.

Notation: N points, L levels, C features a level, 8 corners of the cell a point lies in. Tables are channel-major, (C, entries). The
twin is corner-major inside, (8, L, N). A level whose lattice fits the table is indexed densely, a finer one is hashed.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

_PRIMES = (1, 2654435761, 805459861)
"""Instant-NGP's hash multipliers, one per axis."""

_INITIAL_BOUND = 1e-4
"""Tables start uniform within plus and minus this (source: Instant-NGP)."""

ADAM_BETAS = (0.9, 0.99)
"""Adam's decay rates for hash grids (source: Instant-NGP)."""

ADAM_EPSILON = 1e-15
"""Adam's epsilon for hash grids, whose gradients are small (source: Instant-NGP)."""

_CPU_CHUNK = 16384
"""Points handled at once on a CPU: the corner arrays of more no longer fit the cache (measured: 1.5 times slower at 50,000)."""


@dataclass(frozen=True)
class GridSizes:
    """Sizes of a hash grid that covers [-half_size, half_size]^3.

    base_resolution: cells of a side on level 0; level i has floor(base_resolution * growth**i). table_size: entries a hashed
    level has, a power of two.
    """

    n_levels: int
    n_features: int
    base_resolution: int
    growth: float
    table_size: int
    half_size: float

    def resolutions(self) -> list[int]:
        """Cells of a side, level by level."""
        return [int(self.base_resolution * self.growth**level) for level in range(self.n_levels)]

    def entries(self) -> list[int]:
        """Table entries, level by level: the lattice where it fits, else `table_size`."""
        return [min((resolution + 1) ** 3, self.table_size) for resolution in self.resolutions()]


@dataclass(frozen=True)
class _Levels:
    """What the index arithmetic needs, per level, as (L, 1) tensors; the first `n_dense` levels are dense."""

    resolution: Tensor
    stride: tuple[Tensor, Tensor]
    offset: Tensor
    n_dense: int
    mask: int
    half_size: float


def _levels_from_sizes(sizes: GridSizes, active: int, device: torch.device) -> _Levels:
    resolutions, entries = sizes.resolutions()[:active], sizes.entries()[:active]
    n_dense = sum((resolution + 1) ** 3 <= sizes.table_size for resolution in resolutions)

    def column(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)[:, None]

    sides = [resolution + 1 for resolution in resolutions]
    stride_y = [side if level < n_dense else _PRIMES[1] for level, side in enumerate(sides)]
    stride_z = [side**2 if level < n_dense else _PRIMES[2] for level, side in enumerate(sides)]
    offsets = [sum(entries[:level]) for level in range(active)]
    return _Levels(
        resolution=column(resolutions),
        stride=(column(stride_y), column(stride_z)),
        offset=column(offsets),
        n_dense=n_dense,
        mask=sizes.table_size - 1,
        half_size=sizes.half_size,
    )


def _corners_from_points(points: Tensor, levels: _Levels) -> tuple[Tensor, Tensor]:
    """Table indices (8, L, N) and positions inside the cell (3, L, N) in [0, 1]; points outside the box go to its side."""
    unit = (points.t() / (2 * levels.half_size) + 0.5).clamp(0, 1)
    resolution = levels.resolution.to(points.dtype)
    scaled = unit[:, None, :] * resolution
    cell = torch.minimum(scaled.floor(), resolution - 1)
    fraction = scaled - cell
    x, y, z = cell.to(torch.int64)
    y = y * levels.stride[0]
    z = z * levels.stride[1]
    xs = torch.stack([x, x + 1])
    ys, zs = torch.stack([y, y + levels.stride[0]]), torch.stack([z, z + levels.stride[1]])
    index = torch.empty(2, 2, 2, *x.shape, dtype=torch.int64, device=points.device)
    dense = levels.n_dense
    if dense:
        torch.add(xs[None, None, :, :dense], (ys[None, :, :dense] + zs[:, None, :dense])[:, :, None], out=index[..., :dense, :])
    if dense < x.shape[0]:
        hashed = xs[None, None, :, dense:] ^ (ys[None, :, dense:] ^ zs[:, None, dense:])[:, :, None]
        index[..., dense:, :] = hashed.bitwise_and_(levels.mask)
    return index.add_(levels.offset).view(8, *x.shape), fraction


def _weights_from_fractions(fraction: Tensor) -> Tensor:
    """Trilinear weights (8, L, N)."""
    x, y, z = torch.stack([1 - fraction, fraction], dim=1)
    return ((z[:, None] * y[None])[:, :, None] * x[None, None]).view(8, *fraction.shape[1:])


def _weight_slopes(fraction: Tensor, levels: _Levels) -> list[Tensor]:
    """Derivatives of the trilinear weights along x, y and z, world units, each (8, L, N)."""
    pairs = torch.stack([1 - fraction, fraction], dim=1)
    scale = levels.resolution.to(fraction.dtype) / (2 * levels.half_size)
    step = torch.stack([-scale, scale]).expand(2, *fraction.shape[1:])
    slopes = []
    for axis in range(3):
        x, y, z = (step if axis == other else pairs[other] for other in range(3))
        slopes.append(((z[:, None] * y[None])[:, :, None] * x[None, None]).view(8, *fraction.shape[1:]))
    return slopes


def _gather(table: Tensor, index: Tensor, weights: list[Tensor]) -> Tensor:
    """Weighted sums over the corners, (len(weights), L, C, N)."""
    flat = index.view(-1)
    result = table.new_empty(len(weights), index.shape[1], table.shape[0], index.shape[2])
    for channel, row in enumerate(table):
        values = row.index_select(0, flat).view_as(index)
        for position, weight in enumerate(weights):
            torch.sum(values * weight, dim=0, out=result[position, :, channel])
    return result


@cache
def _rows_from_sizes(sizes: GridSizes, active: int, device: torch.device) -> Tensor:
    """What the kernels need of a level, int32 (L, 5): cells of a side, strides of y and z, mask (0 where dense), first entry."""
    levels = _levels_from_sizes(sizes, active, torch.device("cpu"))
    mask = torch.full_like(levels.resolution, levels.mask)
    mask[: levels.n_dense] = 0
    columns = torch.cat([levels.resolution, *levels.stride, mask, levels.offset], dim=1)
    # The hash multipliers as the signed numbers of the same 32 bits.
    signed = torch.where(columns >= 2**31, columns - 2**32, columns)
    return signed.to(torch.int32).to(device)


class _Interpolate(torch.autograd.Function):
    """Features (L, C, N) and, on request, their derivatives along the axes (3, L, C, N)."""

    @staticmethod
    def forward(ctx: FunctionCtx, points: Tensor, table: Tensor, levels: _Levels, with_jacobian: bool) -> tuple[Tensor, Tensor]:
        index, fraction = _corners_from_points(points, levels)
        slopes = _weight_slopes(fraction, levels) if with_jacobian else []
        result = _gather(table, index, [_weights_from_fractions(fraction), *slopes])
        ctx.save_for_backward(table, index, fraction)
        ctx.levels, ctx.with_jacobian = levels, with_jacobian  # type: ignore[attr-defined]
        return result[0], result[1:]

    @staticmethod
    def backward(
        ctx: FunctionCtx, grad_features: Tensor, grad_jacobian: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        table, index, fraction = ctx.saved_tensors  # type: ignore[attr-defined]
        needs_points, needs_table = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        levels: _Levels = ctx.levels  # type: ignore[attr-defined]
        with_jacobian: bool = ctx.with_jacobian  # type: ignore[attr-defined]
        slopes = _weight_slopes(fraction, levels) if needs_points or with_jacobian else []
        grad_points = grad_table = None
        if needs_points:
            grad_points = (_gather(table, index, slopes) * grad_features).sum(dim=(1, 2)).t()
        if needs_table:
            grad_table = torch.zeros_like(table)
            weights, flat = _weights_from_fractions(fraction), index.view(-1)
            for channel, row in enumerate(grad_table):
                source = weights * grad_features[:, channel]
                for axis, slope in enumerate(slopes if with_jacobian else []):
                    source.addcmul_(slope, grad_jacobian[axis][:, channel].expand_as(slope))
                row.scatter_add_(0, flat, source.view(-1))
        return grad_points, grad_table, None, None


def kernels_suit(device: torch.device) -> bool:
    """Whether kernels may compute: on a GPU they add up in any order, which deterministic algorithms forbid."""
    return device.type == "cpu" or not torch.are_deterministic_algorithms_enabled()


class HashGrid(nn.Module):
    """Features of points, interpolated trilinearly on L lattices from coarse to fine.

    Levels from `active_levels` on give zeros and cost nothing, so that a schedule can add them one by one (coarse to fine).
    """

    def __init__(self, sizes: GridSizes, generator: torch.Generator) -> None:
        """Tables start uniform in +-1e-4 (source: Instant-NGP). Raises ValueError if table_size is no power of two."""
        super().__init__()
        if sizes.table_size & (sizes.table_size - 1) or sizes.table_size < 8:
            raise ValueError(f"table_size is {sizes.table_size}; it must be a power of two, at least 8")
        self.sizes = sizes
        self.active_levels = sizes.n_levels
        shape = (sizes.n_features, sum(sizes.entries()))
        noise = torch.rand(shape, generator=generator, device=generator.device)
        self.table = nn.Parameter((noise * 2 - 1) * _INITIAL_BOUND)

    @property
    def n_outputs(self) -> int:
        """Length of a feature vector, L * C."""
        return self.sizes.n_levels * self.sizes.n_features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """Features, coarse levels first. Differentiable in the table and in the points (almost everywhere)."""
        return self._encode(points, with_jacobian=False)[0]

    def with_jacobian(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n f"], Float[Tensor, "3 n f"]]:
        """Features and their derivatives along x, y, z (per world unit).

        Warning: the derivatives are differentiable in the table, but not in the points.
        """
        return self._encode(points, with_jacobian=True)

    def levels(self) -> Any:
        """The active levels as kernels want them, on the table's device."""
        from dreampolish.kernels.hash_grid import Levels

        rows = _rows_from_sizes(self.sizes, self.active_levels, self.table.device)
        return Levels(rows, 2 * self.sizes.half_size)

    def _encode(self, points: Tensor, with_jacobian: bool) -> tuple[Tensor, Tensor]:
        suits = self.table.dtype == points.dtype == torch.float32 and kernels_suit(points.device)
        interpolated = self._by_kernels if suits else self._by_torch
        features, jacobian = interpolated(points, with_jacobian)
        features, jacobian = features.flatten(0, 1), jacobian.flatten(1, 2)
        missing = self.n_outputs - features.shape[0]
        if missing:
            features = nn.functional.pad(features, (0, 0, 0, missing))
            jacobian = nn.functional.pad(jacobian, (0, 0, 0, missing))
        return features.t(), jacobian.transpose(1, 2)

    def _by_kernels(self, points: Tensor, with_jacobian: bool) -> tuple[Tensor, Tensor]:
        from dreampolish.kernels.hash_grid import Encode  # warp, which what only looks at results does without

        return Encode.apply(points, self.table, self.levels(), with_jacobian)

    def _by_torch(self, points: Tensor, with_jacobian: bool) -> tuple[Tensor, Tensor]:
        levels = _levels_from_sizes(self.sizes, self.active_levels, points.device)
        chunk = _CPU_CHUNK if points.device.type == "cpu" else max(len(points), 1)
        parts = [_Interpolate.apply(part, self.table, levels, with_jacobian) for part in points.split(chunk)]
        return torch.cat([part[0] for part in parts], dim=-1), torch.cat([part[1] for part in parts], dim=-1)
