"""Smoothing a solid where no outline can tell: pits go, see-through gaps and thin parts stay."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dreampolish.fields.lattice import lattice_points, signed_distances
from dreampolish.fields.smoothing import Smoothing, blurred_within_outlines, closed_within_outlines, covered
from dreampolish.scene.cameras import Cameras, orbit_cameras
from schemas.config.neus import OutlinedSmoothingConfig

HALF, RESOLUTION = 0.65, 64
STEP = 2 * HALF / (RESOLUTION - 1)


def views() -> Cameras:
    asked = [(360 * k / count, elevation) for elevation, count in ((-60.0, 4), (0.0, 8), (60.0, 4)) for k in range(count)]
    azimuth, elevation = torch.tensor(asked).unbind(-1)
    return orbit_cameras(azimuth, elevation, torch.full((len(asked),), 20.0), 64)


def smoothing(closing_radius: float = 0.0, blur_std: float = 0.0) -> Smoothing:
    return Smoothing(views(), closing_radius, blur_std, **OutlinedSmoothingConfig().model_dump())


def points() -> np.ndarray:
    return lattice_points(RESOLUTION, HALF, "cpu").view(RESOLUTION, RESOLUTION, RESOLUTION, 3).numpy()


def distances(solid: np.ndarray) -> np.ndarray:
    """Signed distances of a solid of whole lattice points."""
    return signed_distances(np.where(solid, 1.0, -1.0), solid, 0.0) * STEP


def box(half: tuple[float, float, float]) -> np.ndarray:
    return (np.abs(points()) < np.array(half)).all(-1)


def pit() -> np.ndarray:
    """A shaft 0.1 wide and 0.15 deep in the front side of the block, which no outline shows."""
    x, y, z = np.moveaxis(points(), -1, 0)
    return (x > 0.15) & (np.abs(y) < 0.05) & (np.abs(z) < 0.05)


def test_what_is_covered_is_what_every_view_sees_the_solid_in_front_of_or_behind() -> None:
    block = distances(box((0.3, 0.3, 0.3)))
    everywhere = np.ones_like(block, dtype=bool)
    result = covered(everywhere, block, HALF, views())
    assert result[block < 0].all()
    assert not result[block > 3 * STEP].any()
    inside = covered(block < 0, block, HALF, views())
    assert not inside[block >= 0].any()  # not asked


def test_closing_fills_a_pit_and_no_outline_grows() -> None:
    block = box((0.3, 0.3, 0.3))
    start = distances(block & ~pit())
    filled = closed_within_outlines(start, HALF, smoothing(closing_radius=0.08))
    assert (start[pit() & block] > 0).all()
    assert (filled[pit() & block] < 0).mean() > 0.8  # its mouth keeps a dimple
    grown = (filled < 0) & ~block
    assert grown.sum() == 0
    assert closed_within_outlines(start, HALF, smoothing(closing_radius=0.0)) is start
    smaller = closed_within_outlines(start, HALF, smoothing(closing_radius=0.02))  # a ball that fits in
    assert (smaller[pit() & block] < 0).mean() < 0.5


def test_closing_leaves_a_gap_open_that_one_sees_through() -> None:
    block = box((0.1, 0.3, 0.3))
    x, y, z = np.moveaxis(points(), -1, 0)
    gap = (np.abs(y) < 0.05) & (np.abs(z) < 0.2)  # through the thin plate, from front to back
    start = distances(block & ~gap)
    filled = closed_within_outlines(start, HALF, smoothing(closing_radius=0.12))
    assert (filled[(np.abs(y) < 0.02) & (np.abs(z) < 0.1) & (np.abs(x) < 0.05)] > 0).all()


def test_a_blur_flattens_bumps_and_spares_a_thin_leg() -> None:
    x, y, z = np.moveaxis(points(), -1, 0)
    leg = (np.abs(x) < 0.02) & (np.abs(y) < 0.02) & (z < 0.0) & (z > -0.55)
    rng = np.random.default_rng(0)
    block = box((0.3, 0.3, 0.25))
    skin = np.abs(distances(block)) < 1.5 * STEP
    rough = (block ^ (skin & (rng.random(block.shape) < 0.3))) | leg
    start = distances(rough)
    smooth = blurred_within_outlines(start, HALF, smoothing(blur_std=0.04))
    below = leg & (z < -0.35) & (z > -0.5)
    assert (smooth[below] < 0).all(), "the leg is cut"
    front = np.abs(y) + np.abs(z) < 0.2

    def roughness(signed: np.ndarray) -> float:
        """Spread of the depth of the block's front side."""
        return float((signed < 0).sum(0)[front[0]].std())

    assert roughness(smooth) < 0.5 * roughness(start)
    plain = ndimage.gaussian_filter(np.clip(start, -0.12, 0.12), 0.04 / STEP)
    assert (plain[below] > 0).any(), "the leg is too thick to test anything"
    assert blurred_within_outlines(start, HALF, smoothing(blur_std=0.0)) is start


def test_a_blur_takes_frays_off_an_outline() -> None:
    x, y, z = np.moveaxis(points(), -1, 0)
    fray = (np.abs(x) < 0.02) & (np.abs(y) < 0.02) & (z > 0.24) & (z < 0.3)
    smooth = blurred_within_outlines(distances(box((0.3, 0.3, 0.25)) | fray), HALF, smoothing(blur_std=0.04))
    assert fray.sum() > 8
    assert (smooth[fray & (z > 0.27)] > 0).all()


@pytest.mark.parametrize("std", [0.02, 0.05])
def test_a_blurred_ball_keeps_its_radius(std: float) -> None:
    ball = np.linalg.norm(points(), axis=-1) - 0.35
    result = blurred_within_outlines(ball, HALF, smoothing(blur_std=std))
    change = (result - ball)[np.abs(ball) < 2 * STEP]
    assert abs(change.mean()) < STEP / 2
    assert np.abs(change).max() < 1.5 * STEP
