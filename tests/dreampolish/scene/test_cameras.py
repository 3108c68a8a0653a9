"""Cameras against closed forms: frames, framing, rays and projection as inverses, view words and poses."""

import math

import pytest
import torch

from dreampolish.scene import cameras as c


def one(azimuth: float, elevation: float, fov: float = 20.0, size: int = 4) -> c.Cameras:
    return c.orbit_cameras(torch.tensor([float(azimuth)]), torch.tensor([float(elevation)]), torch.tensor([fov]), size)


def test_front_camera_stands_on_plus_x_at_distance_3_8() -> None:
    pose = one(0, 0).world_from_camera[0]
    torch.testing.assert_close(pose[:3, 3], torch.tensor([3.7997, 0.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(pose[:3, :3], torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), atol=1e-6, rtol=0)


def test_rotations_are_right_handed_and_orthonormal() -> None:
    cameras = c.random_cameras(16, (-180.0, 180.0), (-40.0, 80.0), (20.0, 60.0), 4, torch.Generator().manual_seed(0))
    rotation = cameras.world_from_camera[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(16, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(16), atol=1e-5, rtol=0)


def test_rays_project_back_to_their_pixels() -> None:
    cameras = c.random_cameras(3, (-180.0, 180.0), (-30.0, 60.0), (20.0, 60.0), 5, torch.Generator().manual_seed(1))
    origins, directions = c.rays_from_cameras(cameras)
    for index in range(3):
        points = (origins[index] + 2.5 * directions[index]).reshape(-1, 3)
        camera = cameras[[index]]
        pixels = c.pixels_from_points_camera(c.points_camera_from_world(points, camera), camera)[0]
        rows, columns = torch.meshgrid(torch.arange(5) + 0.5, torch.arange(5) + 0.5, indexing="ij")
        torch.testing.assert_close(pixels, torch.stack([columns, rows], -1).reshape(-1, 2), atol=1e-4, rtol=0)


def test_framing_is_constant_over_fields_of_view() -> None:
    for fov in (20.0, 35.0, 60.0):
        camera = one(30, 10, fov, 100)
        above = camera.world_from_camera[0, :3, 1] * c.FRAMING_HALF_HEIGHT
        pixel = c.pixels_from_points_camera(c.points_camera_from_world(above[None], camera), camera)[0, 0]
        torch.testing.assert_close(pixel, torch.tensor([50.0, 0.0]), atol=1e-3, rtol=0)
        half = math.radians(fov / 2)
        assert float(c.distance_from_fov(torch.tensor([fov]))) == pytest.approx(
            c.FRAMING_HALF_HEIGHT / math.tan(half), rel=1e-6
        )


def test_normals_towards_the_viewer_are_plus_z() -> None:
    camera = one(70, 25)
    towards = camera.world_from_camera[:, None, None, :3, 2]
    torch.testing.assert_close(
        c.normals_camera_from_world(towards, camera)[0, 0, 0], torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0
    )


def test_poles_are_refused() -> None:
    with pytest.raises(ValueError, match="pole"):
        one(0, 90)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "words"),
    [(0, 0, "front view"), (44, 10, "front view"), (-46, 0, "side view"), (134, 0, "side view"), (136, 0, "back view"),
     (180, 0, "back view"), (-180, 59, "back view"), (0, 61, "overhead view"), (359, 0, "front view")],
)  # fmt: skip
def test_view_words(azimuth: float, elevation: float, words: str) -> None:
    assert c.view_words(float(azimuth), float(elevation), 45.0) == words


def test_pose_of_the_reference_itself_is_the_identity() -> None:
    pose = c.pose_condition(torch.tensor([0.0, 90.0]), torch.tensor([10.0, 40.0]), 10.0)
    expected = torch.tensor([[0.0, 0, 1, 0], [-math.radians(30), 1, 0, 0]])
    torch.testing.assert_close(pose, expected, atol=1e-6, rtol=0)


def test_turntable_is_even_and_random_azimuths_are_stratified() -> None:
    assert c.turntable_cameras(8, 10.0, 20.0, 4).azimuth_deg.tolist() == [0, 45, 90, 135, 180, 225, 270, 315]
    drawn = c.random_cameras(4, (-180.0, 180.0), (0.0, 1.0), (20.0, 21.0), 4, torch.Generator().manual_seed(5)).azimuth_deg
    assert [int((value + 180) // 90) for value in drawn.tolist()] == [0, 1, 2, 3]
