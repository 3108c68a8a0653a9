"""Distances and sides against the twin that asks every face."""

import math

import pytest
import torch
import trimesh

from dreampolish.assets.solids.mesh_to_sdf import INSIDE, by_torch
from dreampolish.kernels.mesh_distance import MeshDistance


def parts_of(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)


@pytest.mark.parametrize("shape", ["ring", "open box"])
def test_distances_and_sides_are_the_twins(shape: str) -> None:
    made = trimesh.creation.torus(0.35, 0.2, 16, 8) if shape == "ring" else trimesh.creation.box((0.5, 0.6, 0.4))
    vertices, faces = parts_of(made)
    faces = faces if shape == "ring" else faces[2:]
    points = torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    distance, winding = by_torch(vertices.double(), faces, points.double())
    places, number, inside = MeshDistance(vertices, faces).nearest(points, math.inf, INSIDE)
    assert torch.allclose((places - points).norm(dim=-1).double(), distance, atol=1e-6)
    clear = (winding - INSIDE).abs() > 0.02
    assert torch.equal(inside[clear], (winding > INSIDE)[clear])
    assert 10 < int(inside.sum()) < 380
    assert bool((number >= 0).all())


def test_the_twins_numbers_are_those_of_a_cube() -> None:
    vertices, faces = parts_of(trimesh.creation.box((2, 2, 2)))
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0], [2.0, 2.0, 2.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
    distance, winding = by_torch(vertices.double(), faces, points)
    assert distance.tolist() == pytest.approx([1, 2, math.sqrt(3), 0.5])
    assert winding.tolist() == pytest.approx([1, 0, 0, 1], abs=1e-9)


def test_beyond_the_reach_there_is_no_face() -> None:
    vertices, faces = parts_of(trimesh.creation.box((0.2, 0.2, 0.2)))
    points = torch.tensor([[0.0, 0.0, 0.15], [0.0, 0.0, 0.5]])
    assert (MeshDistance(vertices, faces).nearest(points, 0.1, INSIDE)[1] >= 0).tolist() == [True, False]
