"""The smoothing reparametrisation: exact at the start, its gradient checked, its steps smooth."""

import pytest
import torch
import trimesh

from dreampolish.mesh import smooth_vertices
from dreampolish.mesh.smooth_vertices import SmoothVertices, laplacian_matrix


def sphere(subdivisions: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return torch.tensor(mesh.vertices, dtype=torch.float64), torch.tensor(mesh.faces)


def test_laplacian_of_a_tetrahedron() -> None:
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    assert laplacian_matrix(faces, 4).toarray().tolist() == [[3, -1, -1, -1], [-1, 3, -1, -1], [-1, -1, 3, -1], [-1, -1, -1, 3]]


def test_it_starts_at_the_given_vertices() -> None:
    vertices, faces = sphere()
    torch.testing.assert_close(SmoothVertices(vertices, faces, 19.0)(), vertices)


def test_gradient_against_finite_differences() -> None:
    vertices, faces = sphere(0)
    smooth = SmoothVertices(vertices, faces, 5.0)
    target = torch.randn(len(vertices), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (smooth() * target).square().sum().backward()
    assert smooth.smoothed.grad is not None
    with torch.no_grad():
        for row, axis in ((0, 0), (5, 2)):
            smooth.smoothed[row, axis] += 1e-5
            above = (smooth() * target).square().sum()
            smooth.smoothed[row, axis] -= 2e-5
            below = (smooth() * target).square().sum()
            smooth.smoothed[row, axis] += 1e-5
            torch.testing.assert_close(smooth.smoothed.grad[row, axis], (above - below) / 2e-5, rtol=1e-5, atol=1e-8)


def test_a_push_on_one_vertex_spreads_over_its_neighbours() -> None:
    vertices, faces = sphere()
    smooth = SmoothVertices(vertices, faces, 10.0)
    with torch.no_grad():
        smooth.smoothed[0] += vertices[0]
    moved = (smooth() - vertices).detach().norm(dim=1)
    neighbours = faces[(faces == 0).any(dim=1)].unique()
    assert moved[0] == moved.max()
    assert float(moved[neighbours].min()) > 0.3 * float(moved[0])
    torch.testing.assert_close((smooth() - vertices).sum(0), vertices[0], rtol=1e-6, atol=1e-9)  # the mean motion is kept


def test_a_large_system_is_solved_alike_without_a_factorisation(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = sphere(4)
    way = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for most in (10**9, 0):
        monkeypatch.setattr(smooth_vertices, "MOST_FACTORISED", most)
        smooth = SmoothVertices(vertices, faces, 30.0)
        with torch.no_grad():
            smooth.smoothed += way
        moved = smooth()
        (moved * way).sum().backward()
        found.append((moved.detach(), smooth.smoothed.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-7)
    assert float((found[1][0] - vertices).abs().max()) > 0.05
