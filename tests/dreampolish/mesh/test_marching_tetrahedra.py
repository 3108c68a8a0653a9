"""Tetrahedral grids and marching tetrahedra against closed forms and finite differences."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.mesh.marching_tetrahedra import EmptyLevelSetError, marching_tetrahedra
from dreampolish.mesh.tet_grid import TetGrid, tet_grid
from dreampolish.mesh.topology import topology


def _volumes(grid: TetGrid) -> Tensor:
    corner = grid.vertices.double()[grid.tets]
    edges = corner[:, 1:] - corner[:, :1]
    return torch.linalg.det(edges) / 6


@pytest.mark.parametrize("resolution", [2, 6, 32])
def test_grid_fills_the_box_with_positive_tetrahedra(resolution: int) -> None:
    grid = tet_grid(resolution, 0.65)
    volumes = _volumes(grid)
    assert volumes.min() > 0
    assert volumes.sum().item() == pytest.approx(1.3**3, rel=1e-5)
    assert grid.spacing == pytest.approx(1.3 / resolution)


def test_grid_neighbours_share_whole_faces_and_edges_are_listed_once() -> None:
    grid = tet_grid(8, 1.0)
    sides = torch.cat([grid.tets[:, [j for j in range(4) if j != i]] for i in range(4)]).sort(-1)[0]
    side, counts = torch.unique(sides, dim=0, return_counts=True)
    assert set(counts.tolist()) == {1, 2}
    on_wall = (grid.vertices[side[counts == 1]].abs() == 1).all(1).any(-1)
    assert on_wall.all()
    pairs = torch.cat([grid.tets[:, [i, j]] for i in range(4) for j in range(i)]).sort(-1)[0]
    expected = torch.unique(pairs, dim=0)
    assert torch.equal(torch.unique(grid.edges.sort(-1)[0], dim=0), expected)
    assert len(grid.edges) == len(expected)


def test_odd_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="resolution is 7"):
        tet_grid(7, 1.0)


@pytest.mark.parametrize(("resolution", "tolerance"), [(32, 0.012), (64, 0.003), (128, 0.00075)])
def test_sphere_has_its_area_volume_and_topology(resolution: int, tolerance: float) -> None:
    grid = tet_grid(resolution, 0.65)
    vertices, faces = marching_tetrahedra(grid.vertices, grid.vertices.norm(dim=-1) - 0.5, grid.tets)
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.125, rel=tolerance)  # positive: outward
    assert mesh.area == pytest.approx(math.pi, rel=tolerance)
    figures = topology(faces)
    assert figures.watertight
    assert (figures.euler, figures.n_components) == (2, 1)
    assert (vertices.norm(dim=-1) - 0.5).abs().max() < grid.spacing**2


def test_random_values_give_a_closed_consistently_oriented_surface() -> None:
    """Every sign pattern of a tetrahedron occurs: each directed edge must meet its opposite exactly once."""
    grid = tet_grid(12, 1.0)
    sdf = torch.randn(len(grid.vertices), generator=torch.Generator().manual_seed(0))
    sdf[(grid.vertices.abs() == 1).any(-1)] = 1.0
    vertices, faces = marching_tetrahedra(grid.vertices, sdf, grid.tets)
    directed = torch.cat([faces[:, [i, (i + 1) % 3]] for i in range(3)])
    n = len(vertices)
    forward, backward = directed[:, 0] * n + directed[:, 1], directed[:, 1] * n + directed[:, 0]
    assert len(torch.unique(forward)) == len(forward)
    assert torch.equal(forward.sort()[0], backward.sort()[0])
    volumes = _inside_volume(grid, sdf)
    assert trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False).volume == pytest.approx(volumes, rel=0.03)


def _inside_volume(grid: TetGrid, sdf: Tensor) -> float:
    """By counting: the share of points in every tetrahedron whose interpolated value is negative."""
    # Evenly over the simplex: exponential variables by their sum.
    drawn = -torch.rand(400, 4, generator=torch.Generator().manual_seed(0)).clamp_min(1e-9).log()
    shares = drawn / drawn.sum(-1, keepdim=True)
    inside = (sdf[grid.tets] @ shares.T < 0).double().mean(-1)
    return float((inside * _volumes(grid)).sum())


def test_gradients_equal_finite_differences() -> None:
    grid = tet_grid(6, 1.0)
    places = grid.vertices.double()
    sdf = places.norm(dim=-1) - 0.6
    generator = torch.Generator().manual_seed(2)
    direction_sdf = torch.randn(sdf.shape, generator=generator, dtype=torch.float64)
    direction_places = torch.randn(places.shape, generator=generator, dtype=torch.float64)

    def measured(step: Tensor) -> Tensor:
        vertices, _ = marching_tetrahedra(places + step * direction_places, sdf + step * direction_sdf, grid.tets)
        return (vertices.sin() * torch.arange(1, vertices.numel() + 1).reshape(-1, 3)).sum()

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(measured(step), step)
    slope = (measured(torch.tensor(1e-6)) - measured(torch.tensor(-1e-6))) / 2e-6
    assert gradient.item() == pytest.approx(slope.item(), rel=1e-6)


def test_no_crossing_and_bad_values_are_said() -> None:
    grid = tet_grid(4, 1.0)
    with pytest.raises(EmptyLevelSetError, match="lies outside"):
        marching_tetrahedra(grid.vertices, torch.ones(len(grid.vertices)), grid.tets)
    with pytest.raises(EmptyLevelSetError, match="lies inside"):
        marching_tetrahedra(grid.vertices, -torch.ones(len(grid.vertices)), grid.tets)
    with pytest.raises(ValueError, match="NaN"):
        marching_tetrahedra(grid.vertices, torch.full((len(grid.vertices),), torch.nan), grid.tets)
