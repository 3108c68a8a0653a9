"""Faces wound alike and outward."""

import torch
import trimesh

from dreampolish.mesh.winding import wound_alike


def parts_of(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(mesh.vertices), torch.tensor(mesh.faces)


def test_turned_faces_come_back_each_with_its_own_corners() -> None:
    vertices, faces = parts_of(trimesh.creation.torus(1.0, 0.3, 24, 12))
    turned = torch.rand(len(faces), generator=torch.Generator().manual_seed(0)) < 0.5
    mixed = torch.where(turned[:, None], faces.flip(-1), faces)
    found = wound_alike(vertices, mixed)
    assert torch.equal(found.sort(dim=1).values, faces.sort(dim=1).values)
    assert torch.equal(found, torch.where(turned[:, None], mixed.flip(-1), mixed))
    assert trimesh.Trimesh(vertices, found, process=False).is_volume


def test_every_part_faces_outward_by_itself_open_ones_too() -> None:
    vertices, faces = parts_of(trimesh.creation.icosphere(subdivisions=2))
    cap = faces[vertices[faces].mean(1)[:, 2] < 0.5].flip(-1)
    far = vertices + torch.tensor([5.0, 0.0, 0.0])
    found = wound_alike(torch.cat([vertices, far]), torch.cat([faces.flip(-1), cap + len(vertices)]))
    assert torch.equal(found[: len(faces)], faces)
    assert torch.equal(found[len(faces) :], cap.flip(-1) + len(vertices))


def test_edges_of_three_faces_join_nothing() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    assert torch.equal(wound_alike(vertices, faces).sort(dim=1).values, faces)
