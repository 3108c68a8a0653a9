"""True surfaces made rough."""

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.mesh.roughened import roughened, subdivided
from dreampolish.mesh.topology import face_areas, topology


def box() -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.box(extents=(1.0, 0.4, 0.1))
    return torch.tensor(mesh.vertices), torch.tensor(mesh.faces)


def longest_edge(vertices: Tensor, faces: Tensor) -> float:
    return float((vertices[faces] - vertices[faces.roll(-1, dims=1)]).norm(dim=-1).max())


def test_finer_triangles_are_the_same_closed_surface() -> None:
    vertices, faces = box()
    fine, finer = subdivided(vertices, faces, 0.11)
    assert longest_edge(vertices, faces) > 1 and longest_edge(fine, finer) <= 0.11
    found = topology(finer)
    assert (found.watertight, found.euler, found.n_vertices) == (True, 2, len(fine))
    assert torch.equal(fine[: len(vertices)], vertices)
    assert float(face_areas(fine, finer).sum()) == pytest.approx(2 * (0.4 + 0.1 + 0.04))
    corners = fine[finer]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert float(volume) == pytest.approx(0.04), "all faces look outward"


def test_a_fine_mesh_stays_as_it_is_and_no_length_is_refused() -> None:
    vertices, faces = box()
    same, kept = subdivided(vertices, faces, 2.0)
    assert torch.equal(same, vertices) and torch.equal(kept, faces)
    with pytest.raises(ValueError, match="give a length above 0"):
        subdivided(vertices, faces, 0.0)


def test_bumps_stand_along_the_normals_and_are_as_high_as_asked() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    vertices, faces = torch.tensor(ball.vertices), torch.tensor(ball.faces)
    rough = roughened(vertices, faces, 0.01, torch.Generator().manual_seed(3))
    shift = rough - vertices
    outward = vertices / vertices.norm(dim=-1, keepdim=True)
    height = (shift * outward).sum(-1)
    assert float((shift - height[:, None] * outward).norm(dim=-1).max()) < 1e-3, "nothing sideways"
    assert float(height.std()) == pytest.approx(0.01, rel=0.05)
    assert abs(float(height.mean())) < 1e-3
    assert torch.equal(rough, roughened(vertices, faces, 0.01, torch.Generator().manual_seed(3)))
    assert not torch.equal(rough, roughened(vertices, faces, 0.01, torch.Generator().manual_seed(4)))
