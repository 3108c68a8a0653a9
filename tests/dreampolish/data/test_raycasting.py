"""Geometry buffers against closed forms on a sphere and a painted square."""

import numpy as np
import pytest
import torch
import trimesh

from dreampolish.data.library import PaintedMesh
from dreampolish.data.raycasting import RayCaster
from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT, orbit_cameras


def painted(mesh: trimesh.Trimesh, textures: tuple = (None,), uvs: np.ndarray | None = None) -> PaintedMesh:
    faces = np.asarray(mesh.faces)
    return PaintedMesh(
        np.asarray(mesh.vertices, np.float32),
        faces,
        np.asarray(mesh.vertex_normals, np.float32)[faces],
        np.zeros((len(faces), 3, 2), np.float32) if uvs is None else uvs,
        np.zeros(len(faces), np.int64),
        np.array([[0.2, 0.4, 0.6]], np.float32),
        np.ones(1, np.float32),
        textures,
    )


@pytest.fixture(scope="module")
def sphere() -> RayCaster:
    return RayCaster(painted(trimesh.creation.icosphere(subdivisions=4, radius=0.4)))


@pytest.mark.parametrize("fov_deg", [20.0, 50.0])
def test_sphere_disc_has_the_closed_form_area(sphere: RayCaster, fov_deg: float) -> None:
    camera = orbit_cameras(torch.tensor([37.0]), torch.tensor([12.0]), torch.tensor([fov_deg]), 128)
    found = sphere.render(camera, main_paint=0, supersampling=2)
    distance = FRAMING_HALF_HEIGHT / np.tan(np.radians(fov_deg) / 2)
    radius = 0.4 / np.sqrt(distance**2 - 0.4**2) * distance / FRAMING_HALF_HEIGHT * 64  # tangent cone, in pixels
    assert (found.coverage / 255).sum() == pytest.approx(np.pi * radius**2, rel=5e-3)
    np.testing.assert_array_equal(found.coverage, found.paint)


def test_sphere_normals_are_in_the_cameras_frame(sphere: RayCaster) -> None:
    camera = orbit_cameras(torch.tensor([120.0]), torch.tensor([-5.0]), torch.tensor([20.0]), 129)
    found = sphere.render(camera, main_paint=0, supersampling=1)
    normals = found.normals / 127
    np.testing.assert_allclose(normals[:, 64, 64], [0, 0, 1], atol=0.02)
    assert normals[0, 64, 85] > 0.3  # right of the centre: X right
    assert normals[1, 43, 64] > 0.3  # above the centre: Y up
    assert normals[2][found.coverage == 255].min() > -0.1


def test_depth_is_relative_to_the_cameras_distance(sphere: RayCaster) -> None:
    camera = orbit_cameras(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([20.0]), 65)
    found = sphere.render(camera, main_paint=0, supersampling=1)
    assert found.relative_depth[32, 32] == pytest.approx(-0.4, abs=2e-3)
    assert found.relative_depth[0, 0] == 0


def test_background_is_white_and_colour_is_kept(sphere: RayCaster) -> None:
    camera = orbit_cameras(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([20.0]), 33)
    found = sphere.render(camera, main_paint=0, supersampling=2)
    assert found.albedo[:, 0, 0].tolist() == [255, 255, 255]
    assert found.albedo[:, 16, 16].tolist() == [51, 102, 153]


def test_cut_out_texture_lets_rays_pass() -> None:
    square = trimesh.Trimesh([[0, -0.4, -0.4], [0, 0.4, -0.4], [0, 0.4, 0.4], [0, -0.4, 0.4]], [[0, 1, 2], [0, 2, 3]])
    uvs = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], np.float32)
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[:, :4, 3] = 0  # the left half, -y, is a hole
    caster = RayCaster(painted(square, (texture,), uvs))
    camera = orbit_cameras(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([20.0]), 64)
    coverage = caster.render(camera, main_paint=0, supersampling=1).coverage
    assert coverage[32, 20] == 0
    assert coverage[32, 44] == 255
