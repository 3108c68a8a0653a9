"""The hash grid's kernels against their twin in plain torch, finite differences and themselves."""

from collections.abc import Iterator

import pytest
import torch

from dreampolish.fields.hash_grid import GridSizes, HashGrid

SIZES = GridSizes(n_levels=4, n_features=3, base_resolution=4, growth=2.0, table_size=1024, half_size=0.65)
"""Levels of 4 and 8 cells are dense, of 16 and 32 hashed; three features, so that nothing rests on there being two."""


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def a_grid() -> HashGrid:
    generator = torch.Generator().manual_seed(0)
    grid = HashGrid(SIZES, generator)
    with torch.no_grad():
        grid.table.copy_(torch.randn(grid.table.shape, generator=generator))
    return grid


def some_points(n: int, reach: float = 0.8) -> torch.Tensor:
    """Some of them outside the box of 0.65."""
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * reach


def everything(grid: HashGrid, points: torch.Tensor, *, twin: bool) -> list[torch.Tensor]:
    """Features, Jacobian, and gradients of a loss on both to table and points."""
    points = points.clone().requires_grad_()
    features, jacobian = (grid._by_torch if twin else grid._by_kernels)(points, True)
    mixing = torch.randn(jacobian.shape, generator=torch.Generator().manual_seed(2)).to(points)
    loss = features.square().sum() + (jacobian * mixing).sum() / 100
    return [features.detach(), jacobian.detach(), *torch.autograd.grad(loss, [grid.table, points])]


def check_equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = max(float(other.abs().max()), 1e-6) if other.numel() else 1.0
        assert torch.allclose(one, other, atol=2e-6 * scale, rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 7, 5000])
@pytest.mark.parametrize("active", [1, 3, 4])
def test_kernels_equal_their_twin(n: int, active: int) -> None:
    grid = a_grid()
    grid.active_levels = active
    check_equal(everything(grid, some_points(n), twin=False), everything(grid, some_points(n), twin=True))


def test_features_alone_equal_those_beside_a_jacobian() -> None:
    grid, points = a_grid(), some_points(100)
    features = grid(points)
    assert torch.equal(features, grid.with_jacobian(points)[0])
    (alone,) = torch.autograd.grad(features.square().sum(), grid.table)
    (beside,) = torch.autograd.grad(grid.with_jacobian(points)[0].square().sum(), grid.table)
    assert torch.allclose(alone, beside, atol=1e-5)


def test_points_outside_take_the_nearest_points_features() -> None:
    grid, points = a_grid(), some_points(500, reach=3.0)
    assert torch.equal(grid(points), grid(points.clamp(-0.65, 0.65)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_point_that_is_no_number_spoils_only_itself(bad: float) -> None:
    grid, points = a_grid(), some_points(9)
    expected = grid(points)
    points[4, 1] = bad
    features = grid(points)
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(features[others], expected[others])
    if bad != bad:
        assert bool(features[4].isnan().all())
    else:
        assert bool(features[4].isfinite().all())
        assert bool(torch.autograd.grad(features.sum(), grid.table)[0].isfinite().all())


def test_gradients_match_finite_differences() -> None:
    """Features and Jacobian are linear in the table, so a difference over a whole unit has no error but rounding."""
    grid, points = a_grid(), some_points(40)
    mixing = torch.randn(3, 40, grid.n_outputs, generator=torch.Generator().manual_seed(3)) / 100

    def value() -> torch.Tensor:
        features, jacobian = grid.with_jacobian(points)
        return features.sum() + (jacobian * mixing).sum()

    (gradient,) = torch.autograd.grad(value(), grid.table)
    entries = gradient[2].nonzero()[:, 0][::37][:10].tolist()
    assert len(entries) == 10
    for entry in entries:
        values = []
        for change in (0.5, -0.5):
            with torch.no_grad():
                grid.table[2, entry] += change
                values.append(value().double())
                grid.table[2, entry] -= change
        assert float(values[0] - values[1]) == pytest.approx(float(gradient[2, entry]), abs=2e-3)


def test_the_jacobian_and_the_points_gradient_match_finite_differences() -> None:
    """Along one axis, inside a cell, features are linear: points and steps are chosen to stay inside."""
    grid, step = a_grid(), 1e-3
    finest = SIZES.resolutions()[-1]
    cells = torch.randint(0, finest, (50, 3), generator=torch.Generator().manual_seed(4))
    points = ((cells + 0.5) / finest * 2 - 1) * SIZES.half_size
    jacobian = grid.with_jacobian(points)[1]
    for axis in range(3):
        moved = step * torch.eye(3)[axis]
        difference = (grid(points + moved) - grid(points - moved)) / (2 * step)
        assert torch.allclose(jacobian[axis], difference, atol=5e-3 * float(jacobian.abs().max()))
    where = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(grid(where).sum(), where)
    assert torch.allclose(gradient, jacobian.sum(dim=-1).t(), rtol=1e-4, atol=1e-3)


def test_the_bits_do_not_depend_on_the_number_of_threads(two_threads: None) -> None:
    """Every entry of the table gets its contributions in the order of the points, whoever adds them up."""
    grid, points = a_grid(), some_points(20_000)
    several = [everything(grid, points, twin=False) for _ in range(3)]
    torch.set_num_threads(1)
    alone = everything(grid, points, twin=False)
    assert all(torch.equal(one, other) for found in several for one, other in zip(found, alone, strict=True))


def test_points_need_not_be_contiguous() -> None:
    grid, points = a_grid(), some_points(64)
    assert torch.equal(grid(points.t().contiguous().t()), grid(points))


def test_other_precisions_take_the_twin() -> None:
    grid, points = a_grid(), some_points(10)
    expected = grid(points)
    found = grid.double()(points.double())
    assert found.dtype == torch.float64
    assert torch.allclose(found.float(), expected, atol=1e-4)
