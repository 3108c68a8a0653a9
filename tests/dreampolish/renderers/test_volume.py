"""Volume rendering: closed forms of constant media, nerfacc's packed oracle, and gradients."""

import math

import pytest
import torch
from torch import nn

from dreampolish.fields.density import DensityField
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.renderers.samples import sample_rays
from dreampolish.renderers.volume import render_density, visible_samples, weights_from_densities
from dreampolish.scene.cameras import rays_from_cameras, turntable_cameras

SIZES = GridSizes(n_levels=2, n_features=2, base_resolution=4, growth=2.0, table_size=1024, half_size=0.65)
WHITE = torch.ones(3)


class Ball(DensityField):
    """A uniform ball of one colour at the origin, in place of a trained network."""

    def __init__(self, radius: float, density: float, color: tuple[float, float, float]) -> None:
        nn.Module.__init__(self)
        self.radius, self.tint = radius, torch.tensor(color)
        self.value = nn.Parameter(torch.tensor(density))

    def density(self, points: torch.Tensor) -> torch.Tensor:
        return self.value * (points.norm(dim=-1) < self.radius)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.density(points), self.tint.expand(len(points), 3)

    def with_normals(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return *self(points), nn.functional.normalize(points, dim=-1)


def full_grid() -> OccupancyGrid:
    return OccupancyGrid(8, 0.65, "cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network_field() -> DensityField:
    field = DensityField(SIZES, 8, 10.0, 5.0, 0.3, 2.0, seeded(0))
    with torch.no_grad():
        field.network.grid.table.copy_(torch.rand(field.network.grid.table.shape, generator=seeded(1)) - 0.5)
    return field


def test_a_uniform_ball_follows_beer_and_lambert() -> None:
    ball, cameras = Ball(0.4, 2.0, (1.0, 0.5, 0.0)), turntable_cameras(2, 0.0, 20.0, 9)
    render = render_density(ball, full_grid(), cameras, 0.004, 0.0, WHITE, True, None)
    middle = render.opacity[:, 4, 4]
    expected = 1 - math.exp(-2.0 * 0.8)
    assert middle.tolist() == pytest.approx([expected] * 2, abs=5e-3)
    assert render.rgb[0, 4, 4].tolist() == pytest.approx([1.0, 1 - 0.5 * expected, 1 - expected], abs=5e-3)
    distance = 0.670 / math.tan(math.radians(10))
    # Mean depth inside a slab: front + 1/density - length exp(-density length) / opacity.
    assert render.depth[0, 4, 4].item() == pytest.approx(distance - 0.4 + 0.5 - 0.8 * math.exp(-1.6) / expected, abs=5e-3)
    assert render.opacity[0, 0, 0] == 0
    assert render.rgb[0, 0, 0].tolist() == [1, 1, 1]
    assert render.depth[0, 0, 0] == 0
    assert render.normals_camera is not None
    assert render.normals_camera[0, 0, 0].tolist() == [0, 0, 0]


def test_an_opaque_ball_shows_its_front_and_its_normals_face_the_camera() -> None:
    ball, cameras = Ball(0.4, 500.0, (0.2, 0.4, 0.6)), turntable_cameras(1, 30.0, 20.0, 33)
    render = render_density(ball, full_grid(), cameras, 0.004, 1e-3, WHITE, True, None)
    distance = 0.670 / math.tan(math.radians(10))
    assert render.depth[0, 16, 16].item() == pytest.approx(distance - 0.4, abs=6e-3)
    assert render.normals_camera[0, 16, 16].tolist() == pytest.approx([0, 0, 1], abs=0.02)
    assert float(render.normals_camera[0, 16, 22, 0]) > 0.3  # right of the middle: the normal points right
    assert float(render.normals_camera[0, 10, 16, 1]) > 0.3  # above the middle: up
    # Silhouette: the cone of tangents has half-angle asin(radius / distance).
    radius_pixels = math.tan(math.asin(0.4 / distance)) / math.tan(math.radians(10)) * 16.5
    assert float(render.opacity.sum()) == pytest.approx(math.pi * radius_pixels**2, rel=0.03)


def test_weights_equal_a_loop_and_nerfacc_s_formula() -> None:
    occupancy, cameras = full_grid(), turntable_cameras(1, 10.0, 20.0, 5)
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(cameras))
    samples = sample_rays(origins, directions, occupancy, 0.1, seeded(0))
    densities = torch.rand(len(samples.slots), generator=seeded(1)) * 5
    weights, transmittance = weights_from_densities(samples, densities)
    for ray in range(samples.n_rays):
        remaining = 1.0
        for index in (samples.ray_indices == ray).nonzero()[:, 0].tolist():
            assert float(transmittance[index]) == pytest.approx(remaining, abs=1e-5)
            stopped = 1 - math.exp(-float(densities[index]) * 0.1)
            assert float(weights[index]) == pytest.approx(remaining * stopped, abs=1e-5)
            remaining *= 1 - stopped


def test_early_termination_keeps_exactly_the_lit_samples() -> None:
    field = network_field()
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(turntable_cameras(1, 10.0, 20.0, 8)))
    samples = sample_rays(origins, directions, full_grid(), 0.03, None)
    _, transmittance = weights_from_densities(samples, field.density(samples.points))
    kept = visible_samples(samples, field, 0.05)
    assert len(kept.slots) == int((transmittance > 0.05).sum())


def test_gradients_match_finite_differences() -> None:
    field, cameras = network_field(), turntable_cameras(1, 10.0, 20.0, 4)
    target = torch.rand(1, 4, 4, 3, generator=seeded(4))

    def loss() -> torch.Tensor:
        render = render_density(field, full_grid(), cameras, 0.05, 0.0, WHITE, False, None)
        return (render.rgb - target).square().sum() + render.depth.sum()

    loss().backward()
    table, hidden = field.network.grid.table, field.network.hidden.weight
    entry = int(table.grad[1].abs().argmax())
    for parameter, index in ((table, (1, entry)), (hidden, (2, 1))):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * 2e-3
                values.append(float(loss().detach()))
                parameter[index] -= sign * 2e-3
        assert float(parameter.grad[index]) == pytest.approx((values[0] - values[1]) / 4e-3, rel=0.03, abs=5e-3)


def test_nothing_occupied_renders_the_background_and_has_a_gradient() -> None:
    occupancy, field = full_grid(), network_field()
    occupancy.occupied.zero_()
    render = render_density(field, occupancy, turntable_cameras(1, 0.0, 20.0, 4), 0.05, 1e-2, WHITE, True, None)
    assert torch.equal(render.rgb, torch.ones(1, 4, 4, 3))
    (render.rgb.sum() + render.opacity.sum() + render.depth.sum()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in field.parameters())
