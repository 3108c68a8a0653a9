"""Faint parts: a leg that every view shows is kept though the level set lacks it; haze that only some views show is not."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from dreampolish.fields.lattice import lattice_points
from dreampolish.fields.thin_parts import ThinPartsSizes, with_faint_parts
from dreampolish.scene.cameras import Cameras, orbit_cameras
from schemas.config.neus import ThinPartsConfig

HALF, RESOLUTION = 0.65, 64
LEAST_PART = 0.035
SIZES = ThinPartsSizes(**ThinPartsConfig().model_dump(), least_part=LEAST_PART)
STEP = 2 * HALF / (RESOLUTION - 1)
LEVEL, MATTER, FAINT = 40.0, 200.0, 25.0
"""FAINT takes half of the light within 0.028 world units, and lies below the level."""


def views() -> Cameras:
    asked = [(360 * k / count, elevation) for elevation, count in ((-40.0, 5), (0.0, 8), (40.0, 5)) for k in range(count)]
    azimuth, elevation = torch.tensor(asked).unbind(-1)
    return orbit_cameras(azimuth, elevation, torch.full((len(asked),), 20.0), 32)


def box(centre: tuple[float, float, float], half: tuple[float, float, float]) -> Tensor:
    points = lattice_points(RESOLUTION, HALF, "cpu").view(RESOLUTION, RESOLUTION, RESOLUTION, 3)
    return ((points - torch.tensor(centre)).abs() < torch.tensor(half)).all(-1)


SEAT = box((0.0, 0.0, 0.2), (0.3, 0.3, 0.15))
LEG = box((0.2, 0.2, -0.2), (0.04, 0.04, 0.26))


def raised(densities: Tensor, agreement: float) -> np.ndarray:
    """What is added to the level set."""
    solid = (densities > LEVEL).numpy()
    result = with_faint_parts(densities, solid, LEVEL, HALF, views(), 0.01, agreement, SIZES)
    assert result[solid].all()
    return result & ~solid


def test_a_leg_below_the_level_is_added_over_its_whole_length_and_nothing_else() -> None:
    added = raised(SEAT * MATTER + (LEG & ~SEAT) * FAINT, 0.9)
    leg = (LEG & ~SEAT).numpy()
    assert (added & leg).sum() > 0.8 * leg.sum()
    beside = added & ~ndimage.binary_dilation(leg)
    assert beside.sum() < 0.25 * leg.sum()  # a fillet under the seat
    assert not beside[:, :, : RESOLUTION // 2 - 4].any()


def test_a_sponge_of_which_specks_reach_the_level_is_one_leg() -> None:
    specks = torch.rand(LEG.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    leg = LEG & ~SEAT
    added = raised(SEAT * MATTER + (leg & specks) * MATTER, 0.9)
    assert (added & leg.numpy()).sum() > 0.6 * leg.sum()


def test_a_solid_that_the_level_set_shows_whole_stays_as_it_is() -> None:
    assert not raised((SEAT | LEG) * MATTER, 0.9).any()


def test_haze_that_most_views_look_through_is_not_matter() -> None:
    sheet = box((0.0, 0.0, -0.3), (0.011, 0.3, 0.2))  # dark seen along its plane only
    assert not raised(SEAT * MATTER + sheet * FAINT / 4, 0.9).any()


@pytest.mark.parametrize(("side", "kept"), [(0.8, False), (1.8, True)])
def test_a_part_as_large_as_a_leg_counts_and_a_fray_does_not(side: float, kept: bool) -> None:
    half = side * LEAST_PART / 2
    densities = SEAT * MATTER + box((0.0, 0.0, -0.3), (half, half, half)) * 39.0
    assert raised(densities, 0.9).any() == kept


def test_the_soft_edge_of_a_ball_is_no_part_of_it() -> None:
    points = lattice_points(RESOLUTION, HALF, "cpu").view(RESOLUTION, RESOLUTION, RESOLUTION, 3)
    for softness in (0.005, 0.03, 0.05):
        ball = MATTER * torch.sigmoid((0.4 - points.norm(dim=-1)) / softness)
        assert raised(ball, 0.85).sum() < 0.01 * (ball > LEVEL).sum()


def test_an_agreement_of_zero_adds_nothing() -> None:
    assert not raised(SEAT * MATTER + (LEG & ~SEAT) * FAINT, 0.0).any()
