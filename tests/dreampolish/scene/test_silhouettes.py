"""Outlines of one object, and of none: what no shape explains, and how poses and frames are found again."""

import math

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from dreampolish.scene.cameras import Cameras, orbit_cameras, rays_from_cameras
from dreampolish.scene.silhouettes import FitSizes, contradiction, fitted, hull_outlines

SIZE, FOV_DEG = 64, 20.0
FIT = FitSizes(steps=60, rate=0.5, pixels=40, most_turn_deg=15.0, most_move=0.1, pull=0.0005)


def cameras(azimuth_deg: list[float], elevation_deg: list[float]) -> Cameras:
    n = len(azimuth_deg)
    return orbit_cameras(torch.tensor(azimuth_deg), torch.tensor(elevation_deg), torch.full((n,), FOV_DEG), SIZE)


def outlines(seen: Cameras, half: tuple[float, float, float]) -> Bool[Tensor, "n s s"]:
    """Of a box around the origin, `half` its sides long along x, y and z: rays that meet it (slab test)."""
    origins, directions = rays_from_cameras(seen)
    sides = torch.tensor(half)
    ends = torch.stack([(-sides - origins) / directions, (sides - origins) / directions])
    return ends.amin(0).amax(-1) <= ends.amax(0).amin(-1)


def ball(seen: Cameras, radius: float) -> Bool[Tensor, "n s s"]:
    origins, directions = rays_from_cameras(seen)
    along = (origins * directions).sum(-1, keepdim=True)
    return (origins - along * directions).norm(dim=-1) <= radius


def test_a_ball_and_a_box_explain_all_of_their_outlines() -> None:
    seen = cameras([0.0, 90.0, 180.0, 300.0], [10.0, 10.0, 0.0, 40.0])
    assert contradiction(ball(seen, 0.4), seen, tolerance=1.0).tolist() == [0, 0, 0, 0]
    assert contradiction(outlines(seen, (0.2, 0.35, 0.5)), seen, tolerance=1.5).tolist() == [0, 0, 0, 0]


def test_of_a_tall_outline_all_that_a_low_one_forbids_is_unexplained() -> None:
    seen = cameras([0.0, 90.0], [0.0, 0.0])
    tall, low = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    tall[8:56, 24:40] = True
    low[24:40, 24:40] = True
    # Of 48 rows 16 are in both, and with a pixel of tolerance 18; rays are not level, which is worth a row on each side.
    shares = contradiction(torch.stack([tall, low]), seen, tolerance=1.0).tolist()
    assert (48 - 20) / 48 <= shares[0] <= (48 - 16) / 48
    assert shares[1] == 0


def test_outlines_beside_each_other_explain_nothing() -> None:
    seen = cameras([0.0, 180.0], [0.0, 0.0])
    mask = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    mask[:, 20:44, 4:20] = True  # both left: from behind, that is the right
    assert contradiction(mask, seen, tolerance=1.0).tolist() == [1, 1]
    assert contradiction(torch.stack([mask[0], mask[1].flip(1)]), seen, tolerance=1.0).tolist() == [0, 0]


def test_an_empty_outline_contradicts_nothing_of_its_own() -> None:
    seen = cameras([0.0, 90.0], [0.0, 0.0])
    shares = contradiction(torch.zeros(2, SIZE, SIZE, dtype=torch.bool), seen, tolerance=1.0)
    assert shares.tolist() == [0, 0]


def _fit(masks: Bool[Tensor, "n s s"], poses: Cameras, sizes: FitSizes = FIT, *, turned: bool, framed: bool):  # type: ignore[no-untyped-def]
    return fitted(
        masks=masks,
        azimuth_deg=poses.azimuth_deg,
        elevation_deg=poses.elevation_deg,
        fov_deg=FOV_DEG,
        sizes=sizes,
        turned=turned,
        framed=framed,
    )


def test_a_picture_of_another_scale_and_height_is_framed_as_the_front_is() -> None:
    true = cameras([0.0, 90.0], [0.0, 0.0])
    masks = outlines(true, (0.2, 0.25, 0.4))
    small = torch.nn.functional.interpolate(masks[1][None, None].float(), scale_factor=0.875, mode="area")[0, 0] > 0.5
    moved = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    moved[6:62, 4:60] = small  # 2 pixels down from the middle
    fit = _fit(torch.stack([masks[0], moved]), true, turned=False, framed=True)
    assert fit.frames.scale.tolist() == pytest.approx([1, 1 / 0.875], abs=0.04)
    assert float(fit.frames.shift[1, 1]) * SIZE == pytest.approx(-2 / 0.875, abs=0.8)
    assert fit.misfit < 0.1
    assert torch.equal(fit.azimuth_deg, true.azimuth_deg)


def test_a_wrong_elevation_is_found_and_the_front_stays() -> None:
    true = cameras([0.0, 90.0, 180.0], [10.0, 10.0, 10.0])
    masks = outlines(true, (0.4, 0.4, 0.25))
    wrong = cameras([0.0, 90.0, 180.0], [10.0, 10.0, 18.0])
    fit = _fit(masks, wrong, turned=True, framed=False)
    assert fit.elevation_deg.tolist() == pytest.approx([10, 10, 10], abs=2.0)
    assert fit.azimuth_deg.tolist() == pytest.approx([0, 90, 180], abs=2.0)
    assert fit.azimuth_deg[0] == 0 and fit.elevation_deg[0] == 10


def test_what_fits_stays_as_it_was_given() -> None:
    true = cameras([0.0, 90.0], [0.0, 0.0])
    fit = _fit(ball(true, 0.4), true, turned=True, framed=True)
    assert fit.azimuth_deg.tolist() == pytest.approx([0, 90], abs=0.3)
    assert fit.elevation_deg.tolist() == pytest.approx([0, 0], abs=0.3)
    assert fit.frames.scale.tolist() == pytest.approx([1, 1], abs=0.01)


def test_the_hull_of_a_balls_outlines_covers_the_ball_and_little_more() -> None:
    seen = cameras([0.0, 90.0, 180.0, 270.0], [0.0, 0.0, 0.0, 0.0])
    views = cameras([45.0, 90.0], [0.0, 0.0])
    hull = hull_outlines(ball(seen, 0.4), seen, views, tolerance=0.5)
    true = ball(views, 0.4)
    assert bool((hull | ~true).all())
    assert float(hull[1].sum() / true[1].sum()) < 1.08  # as it was given, half a pixel wider
    # Between the views the corners of a square remain. Its sides are the cones' of half angle asin(0.4 / distance), so a corner lies at
    # (c, c) with c = tan(half angle) (distance - c).
    distance = float(seen.world_from_camera[0, :3, 3].norm())
    slope = math.tan(math.asin(0.4 / distance))
    corner = slope * distance / (1 + slope)
    assert float(hull[0].any(0).sum() / true[0].any(0).sum()) == pytest.approx(2**0.5 * corner / (slope * distance), abs=0.05)
