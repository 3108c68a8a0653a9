"""Density to signed distance: a ball keeps its radius, cavities close, crumbs go, emptiness is said."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dreampolish.fields import density_to_sdf as conversion
from dreampolish.fields.density import DensityField
from dreampolish.fields.density_to_sdf import (
    EmptyFieldError,
    LevelSetSizes,
    density_lattice,
    fit_sdf,
    sdf_from_density,
    solid_from_density,
)
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.fields.lattice import lattice_points, sample_lattice, signed_distances
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.fields.smoothing import Smoothing
from dreampolish.fields.thin_parts import ThinPartsSizes
from dreampolish.scene.cameras import orbit_cameras, turntable_cameras
from schemas.config.neus import OutlinedSmoothingConfig, ThinPartsConfig

RADIUS = 0.35
THIN_PARTS = ThinPartsSizes(**ThinPartsConfig().model_dump(), least_part=0.035)


class SoftBall(DensityField):
    """A hollow-ish ball whose density falls softly through its surface, red above and green below, in place of a trained network."""

    def __init__(self, peak: float) -> None:
        nn.Module.__init__(self)
        self.peak = peak

    def density(self, points: torch.Tensor) -> torch.Tensor:
        distance = points.norm(dim=-1)
        return self.peak * torch.sigmoid((RADIUS - distance) / 0.005) * (distance > 0.15)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colors = torch.zeros_like(points)
        colors[:, 0], colors[:, 1] = (points[:, 2] > 0).float(), (points[:, 2] <= 0).float()
        return self.density(points), colors


def converted(peak: float):
    occupancy = OccupancyGrid(16, 0.65, "cpu")
    cameras = turntable_cameras(3, 15.0, 20.0, 24)
    smoothing = Smoothing(cameras, 0.03, 0.015, **OutlinedSmoothingConfig().model_dump())
    sizes = LevelSetSizes(48, 0.7, step_size=0.005, n_levels=24, min_component_share=0.02, faint_agreement=0.85)
    return sdf_from_density(SoftBall(peak), occupancy, cameras, sizes, THIN_PARTS, smoothing)


def test_sampling_a_lattice_inverts_building_one() -> None:
    points = lattice_points(6, 0.65, "cpu")
    values = (points @ torch.tensor([1.0, -2.0, 3.0])).view(6, 6, 6)
    asked = (torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 0.65
    assert torch.allclose(sample_lattice(values, asked, 0.65), asked @ torch.tensor([1.0, -2.0, 3.0]), atol=1e-5)


def test_signed_distances_of_a_sphere_are_exact_at_the_surface_and_right_to_a_sixth_of_a_step_elsewhere() -> None:
    axis = np.arange(40) - 19.3
    radius = np.sqrt(sum(np.square(part) for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    truth = radius - 12.7  # densities that fall by one per step have this level set
    error = np.abs(signed_distances(-truth, truth < 0, 0.0) - truth)
    assert error[np.abs(truth) < 0.5].mean() < 0.02
    for low, high in ((0.5, 2), (2, 9), (9, 30)):
        ring = (np.abs(truth) >= low) & (np.abs(truth) < high)
        assert error[ring].mean() < 1 / 6
        assert error[ring].max() < 0.7


class FaintLeg(SoftBall):
    """A block with a leg of a twentieth of its density, and a piece of that density in the air."""

    def density(self, points: torch.Tensor) -> torch.Tensor:
        x, y, z = points.unbind(-1)
        block = (x.abs() < 0.3) & (y.abs() < 0.3) & (z > 0.05) & (z < 0.35)
        leg = (x.abs() < 0.05) & (y.abs() < 0.05) & (z <= 0.05)  # down to the box's floor and through it
        piece = ((x - 0.4).abs() < 0.04) & ((y - 0.4).abs() < 0.04) & ((z + 0.3).abs() < 0.04)
        return self.peak * (block + 0.05 * (leg | piece))


def test_a_faint_leg_is_solid_after_the_conversion_and_what_hangs_on_nothing_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "automatic_level", lambda **_: 200.0)  # a real field's noise keeps it above its legs
    cameras = orbit_cameras(torch.arange(12) * 30.0, torch.tensor([-30.0, 0.0, 30.0]).repeat(4), torch.full((12,), 20.0), 32)
    smoothing = Smoothing(cameras, 0.0, 0.0, **OutlinedSmoothingConfig().model_dump())
    leg, piece = torch.tensor([[0.0, 0.0, z] for z in (0.0, -0.2, -0.4, -0.55)]), torch.tensor([[0.4, 0.4, -0.3]])
    inside = {}
    for agreement in (0.0, 0.85):
        occupancy = OccupancyGrid(16, 0.65, "cpu")
        sizes = LevelSetSizes(64, 0.3, step_size=0.01, n_levels=24, min_component_share=0.02, faint_agreement=agreement)
        target = sdf_from_density(FaintLeg(500.0), occupancy, cameras, sizes, THIN_PARTS, smoothing)
        assert float(target.at(piece)) > 0
        assert float(target.values[:, :, 0].min()) > 0  # closed below
        inside[agreement] = bool((target.at(leg) < 0).all())
    assert inside == {0.0: False, 0.85: True}


def test_a_soft_ball_keeps_its_radius_and_its_cavity_closes() -> None:
    target = converted(300.0)
    radii = target.surface.norm(dim=-1)
    assert float(radii.mean()) == pytest.approx(RADIUS, abs=0.02)  # a lattice step is 0.028
    assert float(radii.min()) > 0.3  # no inner wall at 0.15
    points = lattice_points(48, 0.65, "cpu")
    error = (target.values.view(-1) - (points.norm(dim=-1) - RADIUS)).abs()
    assert float(error.mean()) < 0.02
    assert float(target.at(torch.zeros(1, 3))) < -0.3
    assert 0.02 * 300 <= target.level <= 300


def test_fitting_carries_geometry_and_colours_over() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = GridSizes(n_levels=4, n_features=2, base_resolution=6, growth=1.6, table_size=2**14, half_size=0.65)
    field = SdfField(sizes, 16, 0.5, math.exp(3), generator)
    target = converted(300.0)
    colors_of_ball = SoftBall(300.0)
    report = fit_sdf(
        field, target, lambda points: colors_of_ball(points)[1], steps=80, batch=1024, learning_rate=0.01, generator=generator
    )
    assert report.mean_deviation < 0.005
    assert report.max_deviation < 0.03
    poles = torch.tensor([[0.0, 0, RADIUS], [0, 0, -RADIUS]])
    assert field.color(poles)[0, 0] > 0.6
    assert field.color(poles)[1, 1] > 0.6
    assert field.sdf(torch.tensor([[0.6, 0, 0]])).item() == pytest.approx(0.25, abs=0.03)


def test_cells_that_are_not_occupied_count_as_empty() -> None:
    occupancy = OccupancyGrid(4, 0.65, "cpu")
    occupancy.occupied.view(4, 4, 4)[2:] = False
    lattice = density_lattice(SoftBall(300.0), occupancy, 21)
    assert float(lattice[:10].max()) > 200
    assert not bool(lattice[11:].any())


def test_an_empty_field_is_an_error_with_a_remedy() -> None:
    with pytest.raises(EmptyFieldError, match="nowhere half opaque.*train"):
        converted(0.05)


def test_crumbs_go_cavities_close_and_the_sides_of_the_box_stay_free() -> None:
    densities = torch.zeros(20, 20, 20)
    densities[4:14, 4:14, 4:14] = 5.0
    densities[8, 8, 8] = 0.0
    densities[17, 17, 17] = 5.0
    densities[0, 5, 5] = 5.0
    solid = solid_from_density(densities, 1.0, 0.01)
    expected = np.zeros((20, 20, 20), dtype=bool)
    expected[4:14, 4:14, 4:14] = True
    assert np.array_equal(solid, expected)
    with pytest.raises(EmptyFieldError, match="above the level"):
        solid_from_density(densities, 9.0, 0.01)
