"""Decimation within a budget, and the mending of pinched edges, against closed forms and counts."""

import math

import fast_simplification
import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes
from torch import Tensor

from dreampolish.mesh.decimate import decimated, mended
from dreampolish.mesh.topology import component_of_face, topology

CUBE = trimesh.creation.box()


def _tensors(mesh: trimesh.Trimesh) -> tuple[Tensor, Tensor]:
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.int64)


def _volume(vertices: Tensor, faces: Tensor) -> float:
    return float(trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False).volume)


def _joined(second: np.ndarray, moved: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Two boxes, the second moved, over shared vertices where they touch."""
    both = np.concatenate([CUBE.vertices, second + np.array(moved)])
    unique, inverse = np.unique(both.round(6), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[np.concatenate([CUBE.faces, CUBE.faces + 8])]
    return torch.tensor(unique, dtype=torch.float32), torch.tensor(faces, dtype=torch.int64)


def _sponge(seed: int) -> tuple[Tensor, Tensor]:
    """A closed surface full of holes, on which collapses pinch."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((24, 24, 24)), 1.5)
    vertices, faces, _, _ = marching_cubes(np.pad(noise[2:-2, 2:-2, 2:-2], 2, constant_values=-0.2), 0.0)
    return _tensors(trimesh.Trimesh(vertices / 24, faces[:, ::-1]))


def test_decimation_keeps_the_shape_within_the_budget() -> None:
    vertices, faces = _tensors(trimesh.creation.icosphere(subdivisions=5, radius=0.5))
    fewer_vertices, fewer = decimated(vertices, faces, 1500)
    assert len(fewer) <= 1500
    assert _volume(fewer_vertices, fewer) == pytest.approx(4 / 3 * math.pi / 8, rel=0.01)
    assert topology(fewer).watertight
    assert decimated(vertices, faces, 10**6)[1] is faces
    with pytest.raises(ValueError, match="max_faces is 3"):
        decimated(vertices, faces, 3)


def test_pinched_edges_of_decimated_sponges_are_mended() -> None:
    pinched = 0
    for seed in range(4):
        vertices, faces = _sponge(seed)
        assert topology(faces).watertight
        target = len(faces) // 10
        raw = fast_simplification.simplify(vertices.numpy(), faces.int().numpy(), target_count=target)
        points, triangles = torch.tensor(raw[0]), torch.tensor(raw[1], dtype=torch.int64)
        pinched += topology(triangles).n_nonmanifold_edges
        fewer_vertices, fewer = decimated(vertices, faces, target)
        assert topology(fewer).watertight
        assert len(fewer) <= target + 50
        assert _volume(fewer_vertices, fewer) == pytest.approx(_volume(points, triangles), rel=1e-4)
    assert pinched > 0  # the defect was there to be mended


def test_cubes_that_share_an_edge_come_apart() -> None:
    vertices, faces = _joined(CUBE.vertices, (1.0, 1.0, 0.0))
    assert topology(faces).n_nonmanifold_edges == 1
    apart, mended_faces = mended(vertices, faces)
    assert topology(mended_faces).watertight
    component = component_of_face(mended_faces)
    assert int(component.max()) == 1
    volumes = [_volume(apart, mended_faces[component == number]) for number in (0, 1)]
    assert volumes == pytest.approx([1.0, 1.0])  # each pair of faces bounds solid matter, not the gap


def test_faces_that_cover_each_other_go_and_a_sound_mesh_stays() -> None:
    vertices, faces = _tensors(CUBE)
    same = mended(vertices, faces)
    assert torch.equal(same[0][same[1]], vertices[faces])
    folded = torch.cat([faces, torch.tensor([[0, 1, 7], [7, 1, 0], [2, 2, 3]])])
    assert torch.equal(mended(vertices, folded)[1], same[1])
    assert len(mended(vertices, faces[:0])[1]) == 0


def test_decimation_to_the_utmost_stays_closed() -> None:
    vertices, faces = _sponge(3)
    for target in (150, 75, 37, 20):
        vertices, faces = decimated(vertices, faces, target)
        assert topology(faces).watertight
