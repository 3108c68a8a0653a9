"""What the benchmark measures of a result, against closed forms of balls."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from dreampolish.scene.pictures import read_picture
from flows.benchmark import truth as benchmark_measures
from flows.benchmark.subjects import Subject, reference_picture
from flows.benchmark.truth import (
    HIGHEST_PSNR,
    framing_iou,
    in_one_color,
    mean_color,
    measured,
    novel_cameras,
    solid,
    truth_of,
    write_reference,
)
from stages.results.surfaces import View, opened_from_textured
from stages.runtime.errors import StageError
from tests.support.balls import ball


def test_a_solid_picture_has_no_half_tones() -> None:
    alpha = torch.tensor([[[1.0, 0.6, 0.5, 0.2, 0.0]]])
    colour = torch.tensor([0.2, 0.4, 0.8])
    rgb = colour * alpha[..., None] + 1 - alpha[..., None]
    pictures = solid(View(rgb, alpha, torch.zeros_like(rgb)))
    assert torch.allclose(pictures[0, 0, :2], colour.expand(2, 3), atol=1e-6)
    assert torch.equal(pictures[0, 0, 2:], torch.ones(3, 3))


def test_a_mesh_in_one_colour_keeps_its_shape_and_loses_its_texture() -> None:
    painted = ball(0.4)
    truth = truth_of(painted, 10.0)
    alpha = torch.tensor([[[1.0, 0.5, 0.0, 1.0]]])
    colours = torch.tensor([[[[0.2, 0.4, 0.6], [0.8, 0.4, 0.0], [0.3, 0.3, 0.3], [0.0, 1.0, 0.0]]]])
    view = View(colours * alpha[..., None] + 1 - alpha[..., None], alpha, torch.zeros_like(colours))
    expected = torch.tensor([0.2 + 0.4, 0.4 + 0.2 + 1.0, 0.6]) / 2.5
    torch.testing.assert_close(mean_color(view), expected)
    with pytest.raises(ValueError, match="shows nothing"):
        mean_color(View(torch.ones(1, 2, 2, 3), torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, 3)))
    grey = torch.tensor([0.3, 0.3, 0.3])
    plain = in_one_color(opened_from_textured(painted), grey).render(truth.front)
    assert torch.equal(plain.alpha, truth.front_view.alpha)
    assert (plain.rgb[plain.alpha == 1] - grey).abs().max() < 1e-6
    assert bool((plain.rgb[plain.alpha == 0] == 1).all())
    figures, _ = measured(in_one_color(opened_from_textured(painted), grey), truth)
    same, _ = measured(opened_from_textured(painted), truth)
    assert figures["chamfer"] == same["chamfer"] and figures["mask_iou"] == same["mask_iou"]
    assert figures["psnr"] < same["psnr"]


def test_bumps_show_as_roughness_and_hardly_as_distance() -> None:
    truth, smooth = truth_of(ball(0.4), 10.0), ball(0.4)
    bumps = 1 + 0.04 * (2 * torch.rand(len(smooth.vertices), 1, generator=torch.Generator().manual_seed(0)) - 1)
    figures, _ = measured(opened_from_textured(dataclasses.replace(smooth, vertices=smooth.vertices * bumps)), truth)
    assert figures["chamfer"] < 0.01
    assert figures["roughness_deg"] > 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_measures, "SIZE", 32)
    monkeypatch.setattr(benchmark_measures, "N_POINTS", 4000)


@pytest.mark.usefixtures("small")
def test_balls_measure_as_the_formulas_say() -> None:
    truth = truth_of(ball(0.6), 10.0)
    same, pictures = measured(opened_from_textured(ball(0.6)), truth)
    assert same["psnr"] == same["psnr_solid"] == same["reference_psnr"] == HIGHEST_PSNR
    assert same["roughness_deg"] == 0
    assert (same["ssim"], same["mask_iou"], same["f_score"], same["chamfer"]) == pytest.approx((1, 1, 1, 0), abs=1e-5)
    assert same["normal_angle_deg"] == pytest.approx(0, abs=0.1)
    assert pictures.shape == (8, 32, 32, 3)
    smaller, _ = measured(opened_from_textured(ball(0.5)), truth)
    # Concentric balls: every nearest distance is the difference of the radii, some 0.1, beyond 2 % of the diagonal.
    assert smaller["chamfer"] == pytest.approx(0.1, abs=0.003)
    assert smaller["f_score"] == 0
    distance = 0.670 / math.tan(math.radians(10))
    shares = [radius**2 / (distance**2 - radius**2) for radius in (0.5, 0.6)]
    assert smaller["mask_iou"] == pytest.approx(shares[0] / shares[1], rel=0.02)
    # Grey 0.5 instead of white on the ring between both silhouettes; partly covered pixels on its rims lower the mean square.
    ring = math.pi / 4 * (shares[1] - shares[0]) / math.tan(math.radians(10)) ** 2
    highest = 0.25 * ring
    assert -10 * math.log10(highest) < smaller["psnr"] < -10 * math.log10(0.8 * highest)


def test_the_views_go_all_around_at_two_elevations_and_leave_the_front_out() -> None:
    cameras = novel_cameras(8)
    assert len(cameras) == 16
    assert cameras.azimuth_deg.diff().tolist() == [22.5] * 15
    assert float(cameras.azimuth_deg.min()) > 0
    assert cameras.elevation_deg.unique().tolist() == [5.0, 35.0]


@pytest.mark.usefixtures("small")
def test_a_reference_that_shows_something_else_is_refused(tmp_path: Path) -> None:
    mesh = ball(0.6)
    write_reference(tmp_path / "reference.png", mesh, 10.0, 64)
    assert framing_iou(tmp_path / "reference.png", mesh, 10.0) > 0.97
    assert float(read_picture(tmp_path / "reference.png")[32, 32, 3]) == 1
    subject = Subject(
        "ball", glb=tmp_path / "mesh.glb", prompt="a ball", reference=tmp_path / "reference.png", elevation_deg=10.0
    )
    assert reference_picture(subject, mesh, tmp_path) == subject.reference
    with pytest.raises(StageError, match="does not show mesh.glb"):
        reference_picture(subject, ball(0.4), tmp_path)
