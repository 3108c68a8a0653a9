"""The hash grid against a slow oracle, closed forms and finite differences."""

import itertools

import pytest
import torch

from dreampolish.fields.hash_grid import GridSizes, HashGrid

SIZES = GridSizes(n_levels=3, n_features=2, base_resolution=3, growth=2.0, table_size=256, half_size=0.65)
"""Levels of 3, 6 and 12 cells: 64 lattice points fit the table of 256, 343 and 2197 are hashed."""


def grid_in_float64(sizes: GridSizes) -> HashGrid:
    generator = torch.Generator().manual_seed(0)
    grid = HashGrid(sizes, generator).double()
    with torch.no_grad():
        grid.table.copy_(torch.rand(grid.table.shape, generator=generator, dtype=torch.float64) - 0.5)
    return grid


def some_points(n: int) -> torch.Tensor:
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1) * 0.64


def slow_features(grid: HashGrid, point: torch.Tensor) -> list[float]:
    """One point, one corner at a time, by the paper's words."""
    sizes, features, offset = grid.sizes, [], 0
    for resolution, entries in zip(sizes.resolutions(), sizes.entries(), strict=True):
        scaled = [(float(x) / (2 * sizes.half_size) + 0.5) * resolution for x in point]
        cell = [min(int(x), resolution - 1) for x in scaled]
        sums = [0.0] * sizes.n_features
        for corner in itertools.product((0, 1), repeat=3):
            x, y, z = (c + d for c, d in zip(cell, corner, strict=True))
            if (resolution + 1) ** 3 <= sizes.table_size:
                index = x + y * (resolution + 1) + z * (resolution + 1) ** 2
            else:
                index = (x ^ (y * 2654435761) ^ (z * 805459861)) % sizes.table_size
            weight = 1.0
            for s, c, d in zip(scaled, cell, corner, strict=True):
                weight *= (s - c) if d else 1 - (s - c)
            for channel in range(sizes.n_features):
                sums[channel] += weight * float(grid.table.detach()[channel, offset + index])
        features += sums
        offset += entries
    return features


def test_features_equal_a_slow_oracle() -> None:
    grid, points = grid_in_float64(SIZES), some_points(20)
    expected = torch.tensor([slow_features(grid, point) for point in points], dtype=torch.float64)
    assert torch.allclose(grid(points), expected, atol=1e-12)


def test_a_dense_level_reproduces_a_linear_function() -> None:
    sizes = GridSizes(n_levels=1, n_features=1, base_resolution=4, growth=1.0, table_size=128, half_size=0.65)
    grid = grid_in_float64(sizes)
    axis = torch.linspace(-0.65, 0.65, 5, dtype=torch.float64)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        grid.table[0] = (2 * x - 3 * y + 5 * z + 1).reshape(-1)
    points = some_points(50)
    features, jacobian = grid.with_jacobian(points)
    slopes = torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64)
    assert torch.allclose(features[:, 0], points @ slopes + 1, atol=1e-12)
    assert torch.allclose(jacobian[:, :, 0], slopes[:, None].expand(3, 50), atol=1e-10)


def test_gradients_match_finite_differences() -> None:
    grid, points = grid_in_float64(SIZES), some_points(6)

    def features(table: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(grid, {"table": table}, (where,))

    table = grid.table.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(features, (table, points.requires_grad_()))


def test_gradients_of_the_jacobian_match_finite_differences() -> None:
    grid, points = grid_in_float64(SIZES), some_points(5)
    mixing = torch.rand(3, 5, grid.n_outputs, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    features, jacobian = grid.with_jacobian(points)
    ((jacobian * mixing).sum() + features.square().sum()).backward()
    used = grid.table.grad[1].nonzero()[:, 0][::7][:12]
    assert len(used) == 12
    step = 1e-6
    for entry in used.tolist():
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                grid.table[1, entry] += sign * step
                moved_features, moved_jacobian = grid.with_jacobian(points)
                grid.table[1, entry] -= sign * step
            values.append((moved_jacobian * mixing).sum() + moved_features.square().sum())
        assert float(grid.table.grad[1, entry]) == pytest.approx(float((values[0] - values[1]) / (2 * step)), abs=1e-6)


def test_jacobian_matches_finite_differences() -> None:
    grid, points, step = grid_in_float64(SIZES), some_points(30), 1e-7
    jacobian = grid.with_jacobian(points)[1]
    for axis in range(3):
        offset = step * torch.eye(3, dtype=torch.float64)[axis]
        difference = (grid(points + offset) - grid(points - offset)) / (2 * step)
        assert torch.allclose(jacobian[axis], difference, atol=1e-5)


def test_chunks_on_a_cpu_change_nothing() -> None:
    grid, points = grid_in_float64(SIZES), some_points(40_000)
    assert torch.allclose(grid(points)[20_000:20_010], grid(points[20_000:20_010]), atol=1e-14)


def test_inactive_levels_are_zero_and_get_no_gradient() -> None:
    grid, points = grid_in_float64(SIZES), some_points(10)
    full = grid(points).detach()
    grid.active_levels = 2
    features, jacobian = grid.with_jacobian(points)
    assert torch.equal(features[:, :4], full[:, :4])
    assert bool((features[:, 4:] == 0).all())
    assert bool((jacobian[:, :, 4:] == 0).all())
    features.sum().backward()
    assert bool((grid.table.grad[:, sum(SIZES.entries()[:2]) :] == 0).all())


def test_indices_stay_inside_their_levels_and_the_box_is_closed() -> None:
    corners = torch.tensor(list(itertools.product((-0.65, 0.65, 9.0), repeat=3)))
    grid, start = grid_in_float64(SIZES), 0
    features = grid(corners.double())
    for level, entries in enumerate(SIZES.entries()):
        of_level = features[:, level * SIZES.n_features : (level + 1) * SIZES.n_features].sum()
        (read,) = torch.autograd.grad(of_level, grid.table, retain_graph=True)
        used = read.abs().sum(dim=0).nonzero()
        assert start <= int(used.min()) <= int(used.max()) < start + entries
        start += entries
    side = torch.tensor([[0.65, 0.1, 0.2]], dtype=torch.float64)
    assert torch.equal(grid(side), grid(side + torch.tensor([[1.0, 0, 0]], dtype=torch.float64)))


def test_no_points_give_no_features() -> None:
    assert grid_in_float64(SIZES)(torch.zeros(0, 3, dtype=torch.float64)).shape == (0, 6)


def test_a_table_size_that_is_no_power_of_two_is_refused() -> None:
    sizes = GridSizes(n_levels=1, n_features=1, base_resolution=4, growth=1.0, table_size=100, half_size=1.0)
    with pytest.raises(ValueError, match="power of two"):
        HashGrid(sizes, torch.Generator())
