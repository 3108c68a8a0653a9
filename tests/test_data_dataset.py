"""The whole way from a library to batches, on two cubes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tiny_library import write_tiny_library

from dreampolish.data.dataset import RenderedViews
from dreampolish.data.renders import RenderPlan, render_all, training_cameras


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> RenderedViews:
    folder = tmp_path_factory.mktemp("renders")
    libraries = write_tiny_library(folder / "libraries")
    render_all(libraries, folder / "renders", RenderPlan(size=32, supersampling=2, views_per_round=(6, 4)))
    split = folder / "split.json"
    split.write_text(json.dumps({"train": ["Tiny#red", "Tiny#blue"], "validation": [], "held_out": ["Tiny#turned"]}))
    return RenderedViews(folder / "renders", split, "train")


def test_every_round_holds_every_object(views: RenderedViews) -> None:
    assert len(views.view_objects) == 2 * (6 + 4)
    assert np.bincount(views.view_objects).tolist() == [10, 10]
    assert views.azimuth_deg[:2].tolist() == [0, 0]  # fronts first


def test_front_view_shows_the_front(views: RenderedViews) -> None:
    front = views.load(np.array([0]))
    assert front.albedo[0, :, 16, 16].tolist() == pytest.approx([0, 1, 0], abs=0.01)
    assert front.normals[0, 2, 16, 16] > 0.9


def test_rendering_again_changes_nothing(views: RenderedViews, tmp_path: Path) -> None:
    libraries = write_tiny_library(tmp_path / "libraries")
    render_all(libraries, tmp_path / "renders", RenderPlan(size=32, supersampling=2, views_per_round=(6, 4)))
    again = np.load(tmp_path / "renders" / "round_1" / "buffers.npy")
    kept = [row for row, name in enumerate(json.loads((tmp_path / "renders/round_1/index.json").read_text())["objects"])]
    first = np.load(views._renders / "round_1" / "buffers.npy")
    np.testing.assert_array_equal(again[kept], first[kept])


def test_positions_lie_on_the_object(views: RenderedViews) -> None:
    chosen = np.arange(8)
    found = views.load(chosen)
    points = views.positions_world(chosen, found.cameras)
    radius = points.norm(dim=1)[found.coverage[:, 0] == 1]
    assert radius.max() < 0.61
    assert points.abs()[:, 0][found.coverage[:, 0] == 1].max() < 0.14  # depth 50 of height 200: x within 0.6 * 0.25 / |..|


def test_text_batch(views: RenderedViews) -> None:
    images, captions = views.text_batch(16, torch.Generator().manual_seed(0))
    assert images.shape == (16, 3, 32, 32)
    assert 0 <= images.min()
    assert images.max() <= 1
    assert all("box" in caption or "crate" in caption for caption in captions)
    again, same = views.text_batch(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(images, again)
    assert captions == same


def test_view_batch_pose_is_a_unit_angle(views: RenderedViews) -> None:
    reference, target, pose = views.view_batch(8, torch.Generator().manual_seed(1))
    assert reference.shape == target.shape == (8, 3, 32, 32)
    torch.testing.assert_close(pose[:, 1] ** 2 + pose[:, 2] ** 2, torch.ones(8))
    assert (pose[:, 3] == 0).all()
    same = (pose[:, 2] > 1 - 1e-6) & (pose[:, 0].abs() < 1e-6)
    torch.testing.assert_close(reference[same], target[same])


def test_normal_batch_is_unit_and_faces_the_viewer_on_the_background(views: RenderedViews) -> None:
    images, normals, mask = views.normal_batch(8, torch.Generator().manual_seed(2))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(8, 32, 32), atol=1e-4, rtol=0)
    outside = mask[:, 0] == 0
    assert (normals.permute(0, 2, 3, 1)[outside] == torch.tensor([0.0, 0.0, 1.0])).all()
    assert images.shape == normals.shape
    assert 0.02 < mask.mean() < 0.6


def test_training_cameras_have_the_stated_ranges() -> None:
    cameras = training_cameras(500, True, 32, torch.Generator().manual_seed(0))
    assert cameras.azimuth_deg[0] == 0
    assert 0 <= cameras.elevation_deg[0] <= 20
    assert cameras.elevation_deg.min() >= -10
    assert 45 < cameras.elevation_deg.max() <= 70
    narrow = (cameras.fov_deg == 20).float().mean()
    assert 0.5 < narrow < 0.7
    assert cameras.fov_deg.max() > 55


def test_missing_renders_are_named(tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text("[]")
    (tmp_path / "split.json").write_text('{"train": [], "validation": [], "held_out": []}')
    with pytest.raises(FileNotFoundError, match="dreampolish.data.renders"):
        RenderedViews(tmp_path, tmp_path / "split.json", "train")
