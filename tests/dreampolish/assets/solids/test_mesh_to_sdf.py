"""Signed distances of meshes against closed forms; what is open, turned, doubled or thin."""

import math

import pytest
import torch
import trimesh

from dreampolish.assets.solids.mesh_to_sdf import face_kinds, sdf_from_mesh
from dreampolish.fields.density_to_sdf import EmptyFieldError
from dreampolish.fields.lattice import lattice_points

HALF = 0.65
POINTS = lattice_points(48, HALF, "cpu")
SPACING = 2 * HALF / 47


def ball(radius: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)


def signed(vertices: torch.Tensor, faces: torch.Tensor, sheet: float = 0.06) -> torch.Tensor:
    return sdf_from_mesh(vertices, faces, 48, HALF, sheet).values.view(-1)


def volume(values: torch.Tensor) -> float:
    return float((values < 0).float().mean()) * (2 * HALF) ** 3


def test_a_ball_has_the_distances_of_a_ball() -> None:
    true = POINTS.norm(dim=-1) - 0.4
    found = signed(*ball())
    near = true.abs() < 0.04
    assert float((found - true)[near].abs().max()) < 0.0013  # the faces lie as much below the ball
    assert float((found - true).abs().max()) < 0.02  # interpolated on the coarse lattice, worst at the middle
    clear = true.abs() > 0.0013
    assert torch.equal((found < 0)[clear], (true < 0)[clear])


def test_the_surface_points_lie_on_the_ball() -> None:
    vertices, faces = ball()
    grid = sdf_from_mesh(vertices, faces, 48, HALF, 0.06)
    assert float((grid.surface.norm(dim=-1) - 0.4).abs().max()) < 0.003
    assert len(grid.surface) > 1000


def test_faces_turned_at_random_do_no_harm() -> None:
    vertices, faces = ball()
    turned = torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) < 0.4
    mixed = torch.where(turned[:, None], faces.flip(-1), faces)
    assert torch.equal(signed(vertices, mixed), signed(vertices, faces))
    assert torch.equal(signed(vertices, faces.flip(-1)), signed(vertices, faces))


def test_a_hole_is_closed_by_the_winding_number() -> None:
    vertices, faces = ball()
    open_ball = faces[vertices[faces].mean(1)[:, 2] < 0.3]
    true = POINTS.norm(dim=-1) - 0.4
    found = signed(vertices, open_ball)
    assert len(open_ball) < 0.9 * len(faces)
    below = (true.abs() < 0.04) & (POINTS[:, 2] < 0.2)
    assert float((found - true)[below].abs().max()) < 0.0013  # the faces lie as much below the ball
    assert 0.85 < volume(found) / (4 / 3 * math.pi * 0.4**3) <= 1.0
    # Across the hole the distance does not leap from far inside to far outside.
    grid = found.view(48, 48, 48)
    crossed = (grid[:, :, 1:] < 0) != (grid[:, :, :-1] < 0)
    assert float((grid[:, :, 1:] - grid[:, :, :-1]).abs()[crossed].max()) < 4.1 * SPACING


def test_a_sheet_gets_its_thickness_and_no_more() -> None:
    vertices = torch.tensor([[-0.3, -0.3, 0.0], [0.3, -0.3, 0.0], [0.3, 0.3, 0.0], [-0.3, 0.3, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    kinds = face_kinds(vertices, faces)
    assert bool(kinds.sheet.all()) and not bool(kinds.boundary.any())
    found = signed(vertices, faces, sheet=0.1)
    middle = (POINTS[:, :2].abs() < 0.2).all(dim=1)
    assert torch.allclose(found[middle], POINTS[middle, 2].abs() - 0.05, atol=0.01)
    with pytest.raises(EmptyFieldError, match="encloses nothing"):
        signed(vertices, faces, sheet=0.0)


def test_walls_inside_overlapping_parts_bound_nothing() -> None:
    vertices, faces = ball(0.25)
    shift = torch.tensor([0.2, 0.0, 0.0])
    both = torch.cat([vertices, vertices + shift])
    found = signed(both, torch.cat([faces, faces + len(vertices)]))
    one, other = POINTS.norm(dim=-1) - 0.25, (POINTS - shift).norm(dim=-1) - 0.25
    true = torch.minimum(one, other)
    outside = (true > 0) & (true < 0.04)
    assert float((found - true)[outside].abs().max()) < 0.0013  # the faces lie as much below the ball
    assert float(found[(POINTS - shift / 2).norm(dim=-1) < 0.05].max()) < -0.1
