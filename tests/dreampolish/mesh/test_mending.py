"""Flaws counted, and mended without moving a vertex."""

import pytest
import torch
import trimesh

from dreampolish.mesh.mending import borders, flaws_of, mended
from dreampolish.mesh.topology import topology


def ball() -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=3)
    return torch.tensor(mesh.vertices), torch.tensor(mesh.faces)


def broken() -> tuple[torch.Tensor, torch.Tensor]:
    """A ball with two holes, faces turned, doubled and empty ones, and a crumb."""
    vertices, faces = ball()
    height = vertices[faces].mean(1)[:, 2]
    faces = faces[(height < 0.8) & (height > -0.95)]
    faces = torch.cat([faces[:20].flip(-1), faces[20:], faces[30:33], torch.tensor([[4, 4, 7]])])
    crumb = torch.tensor([[0.0, 0, 2], [0.01, 0, 2], [0, 0.01, 2]], dtype=torch.float64)
    return torch.cat([vertices, crumb]), torch.cat([faces, torch.tensor([[0, 1, 2]]) + len(vertices)])


def test_a_whole_mesh_has_no_flaws() -> None:
    assert flaws_of(*ball()).told() == ""


def test_flaws_are_counted() -> None:
    found = flaws_of(*broken())
    assert (found.holes, found.turned, found.doubled, found.flat, found.crumbs, found.parts) == (3, 20, 3, 1, 1, 2)
    assert found.told().startswith("3 holes (")


def test_what_was_broken_is_closed_and_no_old_face_lost() -> None:
    vertices, faces = broken()
    found = mended(vertices, faces)
    assert topology(found.faces).watertight
    assert flaws_of(vertices, found.faces).told() == ""
    old = found.source >= 0
    assert torch.equal(found.faces[old].sort(dim=1).values, faces[found.source[old]].sort(dim=1).values)
    volume = trimesh.Trimesh(vertices, found.faces, process=False).volume
    whole, loss = 4 / 3 * torch.pi, torch.pi * (0.2**2 * (3 - 0.2) + 0.05**2 * (3 - 0.05)) / 3
    assert volume == pytest.approx(whole - loss, rel=0.03)


def test_a_border_that_is_not_convex_is_filled_flat() -> None:
    """A star of ten corners in the plane: its area, and nothing outside it."""
    angle = torch.arange(10, dtype=torch.float64) * torch.pi / 5
    radius = torch.where(torch.arange(10) % 2 == 0, 1.0, 0.4)
    star = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.zeros(10)], dim=1)
    below = star - torch.tensor([0.0, 0.0, 1.0])
    vertices = torch.cat([star, below])
    sides = [[k, 10 + k, (k + 1) % 10] for k in range(10)] + [[(k + 1) % 10, 10 + k, 10 + (k + 1) % 10] for k in range(10)]
    found = mended(vertices, torch.tensor(sides))
    solid = trimesh.Trimesh(vertices, found.faces, process=False)
    area = 10 * 0.5 * 0.4 * torch.sin(torch.tensor(torch.pi / 5)).item()
    assert solid.is_volume
    assert solid.volume == pytest.approx(area, rel=1e-6)
    assert solid.area == pytest.approx(2 * area + float((star - star.roll(-1, 0)).norm(dim=1).sum()), rel=1e-6)


def test_two_holes_that_meet_in_a_vertex_are_two() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]], dtype=torch.float64)
    assert sorted(len(loop) for loop in borders(torch.tensor([[0, 1, 2], [0, 3, 4]]))) == [3, 3]
    assert len(vertices) == 5
