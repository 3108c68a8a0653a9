"""The elevation of upright things by their normals: a box and a cylinder seen from known elevations."""

import pytest
import torch

from dreampolish.scene.elevation import estimated_elevation, upright_score

WITHIN, WIDTH = (-15.0, 60.0), 8.0


def _camera_from_world(elevation_deg: float, azimuth_deg: float) -> torch.Tensor:
    """Rows: right, up and towards the viewer, in a world with z up."""
    elevation, azimuth = torch.deg2rad(torch.tensor([elevation_deg, azimuth_deg]))
    toward = torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()])
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros(())])
    return torch.stack([right, torch.linalg.cross(toward, right), toward])


def _seen(normals_world: torch.Tensor, elevation_deg: float, azimuth_deg: float) -> torch.Tensor:
    """Those that face the camera, in its frame, as a picture of one row."""
    found = normals_world @ _camera_from_world(elevation_deg, azimuth_deg).T
    return found[found[:, 2] > 0.02][None]


def _box() -> torch.Tensor:
    return torch.cat([torch.eye(3), -torch.eye(3)]).repeat_interleave(20, dim=0)


def _cylinder() -> torch.Tensor:
    turn = torch.linspace(0, 2 * torch.pi, 200)
    return torch.cat([torch.stack([turn.cos(), turn.sin(), torch.zeros(200)], dim=1), torch.eye(3)[2:].expand(40, -1)])


@pytest.mark.parametrize("elevation", [-10.0, 0.0, 10.0, 25.0, 40.0])
def test_upright_things_say_from_where_they_are_seen(elevation: float) -> None:
    for normals, azimuth in ((_box(), 30.0), (_cylinder(), 0.0)):
        seen = _seen(normals, elevation, azimuth)
        found, score = estimated_elevation(seen, torch.ones(seen.shape[:2]), WITHIN, WIDTH)
        assert found == pytest.approx(elevation, abs=0.5)
        assert score > 0.99


def test_a_tilted_pixel_in_ten_does_not_matter_and_the_background_never_does() -> None:
    seen = _seen(_box(), 20.0, 30.0)
    tilted = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 0.8]), dim=0)
    seen[:, ::10] = tilted
    noise = torch.nn.functional.normalize(torch.randn(1, 400, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    mask = torch.cat([torch.ones(seen.shape[:2]), torch.zeros(1, 400)], dim=1)
    found, score = estimated_elevation(torch.cat([seen, noise], dim=1), mask, WITHIN, WIDTH)
    assert found == pytest.approx(20.0, abs=1.0)
    assert score < 0.99


def test_agreement_falls_off_with_the_angle() -> None:
    up = torch.tensor([[0.0, 1.0, 0.0]])
    scores = upright_score(up, torch.tensor([0.0, 8.0]), 8.0)
    torch.testing.assert_close(scores, torch.tensor([1.0, 0.6065]), atol=1e-3, rtol=0)


def test_without_a_pixel_inside_there_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="no pixel"):
        estimated_elevation(torch.ones(4, 4, 3), torch.zeros(4, 4), WITHIN, WIDTH)
