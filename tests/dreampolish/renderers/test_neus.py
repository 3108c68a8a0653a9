"""NeuS rendering: the alpha formula, analytic spheres, gradients, and what splitting may not lose."""

import math

import pytest
import torch

from dreampolish.fields.hash_grid import GridSizes
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.renderers.neus import alphas_from_sdf, render_sdf, update_surface_occupancy, visible_shell
from dreampolish.renderers.samples import sample_rays
from dreampolish.scene.cameras import rays_from_cameras, turntable_cameras

SIZES = GridSizes(n_levels=2, n_features=2, base_resolution=4, growth=2.0, table_size=1024, half_size=0.65)
WHITE = torch.ones(3)
RADIUS = 0.4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sphere(inverse_std: float) -> tuple[SdfField, OccupancyGrid]:
    field = SdfField(SIZES, 8, RADIUS, inverse_std, seeded(0))
    occupancy = OccupancyGrid(32, 0.65, "cpu")
    update_surface_occupancy(occupancy, field, 0.03, seeded(1))
    return field, occupancy


def test_alpha_is_the_formula_of_the_paper() -> None:
    sdf = torch.linspace(-0.05, 0.05, 11, dtype=torch.float64)
    cosines, lengths, s = torch.full_like(sdf, -0.8), torch.full_like(sdf, 0.02), torch.tensor(100.0, dtype=torch.float64)
    start, end = torch.sigmoid(s * (sdf + 0.008)), torch.sigmoid(s * (sdf - 0.008))
    alphas = alphas_from_sdf(sdf, cosines, lengths, s, 1.0)
    assert torch.allclose(alphas, ((start - end) / start).clamp(min=0), atol=1e-12)


def test_leaving_a_surface_is_transparent_once_annealed_and_counts_half_before() -> None:
    sdf, lengths, s = torch.zeros(1), torch.full((1,), 0.02), torch.tensor(100.0)
    leaving = torch.ones(1)
    assert float(alphas_from_sdf(sdf, leaving, lengths, s, 1.0)) == 0
    sideways = alphas_from_sdf(sdf, torch.zeros(1), lengths, s, 0.0)
    assert float(sideways) == pytest.approx(float(alphas_from_sdf(sdf, torch.full((1,), -0.5), lengths, s, 1.0)))


def test_alpha_and_its_gradient_stay_finite_far_from_the_surface() -> None:
    sdf = torch.tensor([-5.0, 5.0], requires_grad=True)
    alphas = alphas_from_sdf(sdf, -torch.ones(2), torch.full((2,), 0.02), torch.tensor(3000.0), 1.0)
    alphas.sum().backward()
    assert alphas.tolist() == pytest.approx([1.0, 0.0])
    assert bool(sdf.grad.isfinite().all())


def test_alpha_gradients_match_finite_differences() -> None:
    sdf = torch.tensor([-0.02, 0.003, 0.05], dtype=torch.float64, requires_grad=True)
    cosines = torch.tensor([-0.9, -0.3, 0.4], dtype=torch.float64, requires_grad=True)
    s = torch.tensor(60.0, dtype=torch.float64, requires_grad=True)
    lengths = torch.full((3,), 0.02, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, c, k: alphas_from_sdf(f, c, lengths, k, 0.6), (sdf, cosines, s))


@pytest.mark.parametrize(("parts", "step"), [(0, 0.004), (1, 0.02), (3, 0.03)])
def test_a_sharp_sphere_has_its_depth_area_and_normals(parts: int, step: float) -> None:
    field, occupancy = sphere(400.0)
    cameras = turntable_cameras(1, 30.0, 20.0, 33)
    with torch.no_grad():
        picture = render_sdf(field, occupancy, cameras, step, parts, 1e-2, 1.0, WHITE, None).picture
    distance = 0.670 / math.tan(math.radians(10))
    assert float(picture.opacity[0, 16, 16]) > 0.98
    assert float(picture.depth[0, 16, 16]) == pytest.approx(distance - RADIUS, abs=5e-3)
    assert picture.normals_camera[0, 16, 16].tolist() == pytest.approx([0, 0, 1], abs=0.03)
    assert float(picture.normals_camera[0, 16, 22, 0]) > 0.3
    assert float(picture.normals_camera[0, 10, 16, 1]) > 0.3
    radius_pixels = math.tan(math.asin(RADIUS / distance)) / math.tan(math.radians(10)) * 16.5
    assert float(picture.opacity.sum()) == pytest.approx(math.pi * radius_pixels**2, rel=0.02)


def test_splitting_the_visible_shell_agrees_with_fine_even_steps_and_needs_fewer_samples() -> None:
    field, occupancy = sphere(150.0)
    cameras = turntable_cameras(1, 30.0, 20.0, 24)
    with torch.no_grad():
        fine = render_sdf(field, occupancy, cameras, 0.005, 0, 1e-2, 1.0, WHITE, None)
        quick = render_sdf(field, occupancy, cameras, 0.02, 2, 1e-2, 1.0, WHITE, None)
    assert float((fine.picture.opacity - quick.picture.opacity).abs().max()) < 0.03
    assert float((fine.picture.rgb - quick.picture.rgb).abs().max()) < 0.03
    assert len(quick.sdf) < 0.35 * len(fine.sdf)


def test_the_shell_ends_behind_the_front_surface() -> None:
    field, occupancy = sphere(400.0)
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(turntable_cameras(1, 0.0, 20.0, 9)))
    samples = sample_rays(origins, directions, occupancy, 0.02, None)
    kept = visible_shell(samples, field, 1e-2, 1.0)
    middle = kept.points[kept.ray_indices == 40]
    assert len(middle) > 0
    assert bool((middle[:, 0] > 0).all())  # the camera is on +x: nothing of the far side is left


class Sheet(SdfField):
    """A sheet across the x axis, thinner than the steps of the test below."""

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        return points[:, 0].abs() - 0.004


def test_no_ray_steps_over_a_part_thinner_than_a_step() -> None:
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(turntable_cameras(1, 0.0, 20.0, 9)))
    samples = sample_rays(origins, directions, OccupancyGrid(8, 0.65, "cpu"), 0.02, seeded(2))
    kept = visible_shell(samples, Sheet(SIZES, 8, RADIUS, 400.0, seeded(0)), 1e-2, 1.0)
    crossing = (directions[:, 0] < -0.9).nonzero()[:, 0]
    assert len(crossing) == 81
    nearest = [float(kept.points[kept.ray_indices == ray, 0].abs().min()) for ray in crossing.tolist()]
    assert max(nearest) <= 0.0101


def test_occupancy_covers_the_surface_and_little_else() -> None:
    _, occupancy = sphere(100.0)
    directions = torch.nn.functional.normalize(torch.randn(500, 3, generator=seeded(5)), dim=-1)
    assert bool(occupancy.at_steps(directions * 0, directions, torch.full((500, 1), RADIUS)).all())
    assert not bool(occupancy.at_steps(directions * 0, directions, torch.full((500, 1), RADIUS / 4)).any())


def test_gradients_match_finite_differences() -> None:
    field, _ = sphere(30.0)
    with torch.no_grad():
        field.network.grid.table.copy_(torch.rand(field.network.grid.table.shape, generator=seeded(3)) - 0.5)
    cameras, occupancy = turntable_cameras(1, 10.0, 20.0, 4), OccupancyGrid(8, 0.65, "cpu")
    target = torch.rand(1, 4, 4, 3, generator=seeded(4))

    def loss() -> torch.Tensor:
        render = render_sdf(field, occupancy, cameras, 0.05, 0, 1e-2, 0.7, WHITE, None)
        picture = render.picture
        anchors = (picture.rgb - target).square().sum() + picture.depth.sum() + picture.normals_camera[..., 2].sum()
        return anchors + (render.gradients.norm(dim=-1) - 1).square().mean()

    loss().backward()
    table, hidden = field.network.grid.table, field.network.hidden.weight
    entry = int(table.grad[0].abs().argmax())
    for parameter, index, step in ((table, (0, entry), 2e-3), (hidden, (2, 1), 2e-3), (field.sharpness, (), 1e-3)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * step
                values.append(float(loss().detach()))
                parameter[index] -= sign * step
        assert float(parameter.grad[index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.03, abs=2e-2)


def test_nothing_occupied_renders_the_background() -> None:
    field, occupancy = sphere(100.0)
    occupancy.occupied.zero_()
    render = render_sdf(field, occupancy, turntable_cameras(1, 0.0, 20.0, 4), 0.05, 2, 1e-2, 1.0, WHITE, None)
    assert torch.equal(render.picture.rgb, torch.ones(1, 4, 4, 3))
    assert render.sdf.shape == (0,)
