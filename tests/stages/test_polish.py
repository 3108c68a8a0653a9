"""What polishing holds on to."""

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.fields.color import ColorField
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.mesh.roughened import roughened
from dreampolish.mesh.smooth_vertices import SmoothVertices
from dreampolish.mesh.topology import vertex_normals
from dreampolish.metrics.surfaces import roughness_deg, sample_surface
from dreampolish.optim.floored_adam import FlooredAdam
from dreampolish.scene.cameras import orbit_cameras, turntable_cameras
from flows.runs.given_mesh import POLISHED
from schemas.config.polish import PolishConfig
from schemas.config.presets import merged
from schemas.config.run import Config
from stages.guidance.reference_view import ReferenceView
from stages.polish import (
    Polishing,
    carry_colors,
    displacement_loss,
    polishing_losses,
    prior_agreement,
    silhouette_change,
)
from stages.results.files import Mesh, mesh_from_parts
from stages.results.observer import Preview

CAMERAS = turntable_cameras(3, 15.0, 20.0, 48)


def ball() -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    return mesh_from_parts(torch.tensor(sphere.vertices).float(), torch.tensor(sphere.faces))


def alpha_of(mesh: Mesh) -> Tensor:
    return mesh.render(CAMERAS, lambda points, normals: torch.zeros_like(points), 1, True).alpha


def test_a_silhouette_is_the_renders_mask() -> None:
    mesh = ball()
    assert torch.equal(mesh.silhouette(CAMERAS), alpha_of(mesh))


def test_a_mesh_that_shrank_is_pulled_back_and_one_that_swelled_too() -> None:
    start = ball()
    assert float(silhouette_change(alpha_of(start), start, CAMERAS)) == 0
    for scale in (0.95, 1.05):
        size = torch.tensor(scale, requires_grad=True)
        loss = silhouette_change(alpha_of(start.moved(start.vertices * size)), start, CAMERAS)
        assert float(loss) > 0
        (pull,) = torch.autograd.grad(loss, size)
        assert (float(pull) < 0) == (scale < 1)


def test_the_pull_of_a_changed_silhouette_matches_finite_differences() -> None:
    angles = torch.tensor([0.0, 120.0], dtype=torch.float64)
    cameras = orbit_cameras(angles, angles / 8, torch.full_like(angles, 20.0), 24)
    single = ball()
    start = single.moved(single.vertices.double().requires_grad_())
    generator = torch.Generator().manual_seed(1)
    way = torch.randn(start.vertices.shape, generator=generator, dtype=torch.float64)

    def change(step: Tensor) -> Tensor:
        moved = start.moved(start.vertices.detach() * 0.97 + step * way)
        return silhouette_change(moved.silhouette(cameras), start, cameras)

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    pulls = torch.autograd.grad(change(step), (step, start.vertices), allow_unused=True)
    slope = (change(torch.tensor(1e-6)) - change(torch.tensor(-1e-6))) / 2e-6
    assert abs(float(slope)) > 1e-3
    assert float(pulls[0]) == pytest.approx(float(slope), rel=1e-4)
    assert pulls[1] is None


def test_carried_colours_are_those_of_the_places_that_vertices_came_from() -> None:
    start, shift = ball(), torch.tensor([0.05, -0.03, 0.08])
    carried = start.carried(start.vertices + shift).render(CAMERAS, lambda points, normals: points, 1, True)
    seen = carried.alpha > 0.99
    inside = (carried.rgb - (carried.points_world - shift)).abs().amax(-1)[seen] < 1e-5
    assert float(inside.float().mean()) > 0.95  # the rest is blended at creases
    twice = start.carried(start.vertices + shift).carried(start.vertices + 2 * shift)
    assert twice.painted_at is start.vertices
    still = start.moved(start.vertices + shift).render(CAMERAS, lambda points, normals: points, 1, True)
    assert float(((still.rgb - still.points_world).abs().amax(-1)[seen] < 1e-5).float().mean()) > 0.95


def test_a_colour_field_learns_to_say_on_the_moved_surface_what_it_said_before() -> None:
    generator = torch.Generator().manual_seed(0)
    colors = ColorField(
        GridSizes(n_levels=6, n_features=2, base_resolution=4, growth=1.6, table_size=2**12, half_size=0.65), 16, generator
    )
    with torch.no_grad():
        colors.network.grid.table.copy_(torch.randn(colors.network.grid.table.shape, generator=generator))
    start = ball()
    vertices = start.vertices * torch.tensor([1.1, 1.0, 0.9]) + torch.tensor([0.04, 0.0, 0.0])

    def middles(corners: Tensor) -> Tensor:
        return corners[start.faces].mean(1)

    with torch.no_grad():
        wanted, before = colors(middles(start.vertices)), colors(middles(vertices))
    config = PolishConfig(color_fit_steps=200, color_fit_lr=0.01)
    error = carry_colors(config, start, vertices, colors, generator)
    with torch.no_grad():
        after = colors(middles(vertices))
    assert float((after - wanted).abs().mean()) < 0.5 * float((before - wanted).abs().mean())
    assert 0 < error < float((before - wanted).square().mean())
    assert not any(parameter.requires_grad for parameter in colors.parameters())


def test_displacement_is_the_mean_square_distance_from_the_start() -> None:
    start = ball().vertices
    moved = (start + torch.tensor([0.3, 0.0, 0.4])).requires_grad_()
    loss = displacement_loss(moved, start)
    assert loss.item() == pytest.approx(0.25)
    (pull,) = torch.autograd.grad(loss, moved)
    assert torch.allclose(pull, (2 / len(start)) * torch.tensor([0.3, 0.0, 0.4]).expand_as(pull), atol=1e-7)


class TurnedNormals:
    """A normal prior that knows the mesh of its turntable and says its normals times a factor for every view in turn, noise elsewhere."""

    def __init__(self, mesh: Mesh, size: int, factors: list[float]) -> None:
        cameras = turntable_cameras(8, 15.0, 40.0, size)
        seen = mesh.render(cameras, lambda points, normals: points, 1, True)
        noise = torch.randn(seen.rgb.shape, generator=torch.Generator().manual_seed(3))
        said = seen.normals_camera * torch.tensor(factors)[:, None, None, None]
        self.image_size, self._said = size, torch.where(seen.fragments.mask[..., None], said, noise).permute(0, 3, 1, 2)

    def estimate(self, images: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        first, self._said = self._said[:1], self._said[1:]
        return first


@pytest.mark.parametrize(
    ("factors", "expected"), [([1.0] * 8, 1.0), ([-1.0] * 8, -1.0), ([1.0, 0.5, 2.0, 1.0, 1.0, 3.0, -1.0, -2.0], 0.5)]
)
def test_agreement_with_the_prior_is_the_mean_cosine_where_the_mesh_is_seen(factors: list[float], expected: float) -> None:
    generator, blank = torch.Generator().manual_seed(0), torch.ones(1, 8, 8, 3)
    colors = ColorField(
        GridSizes(n_levels=2, n_features=2, base_resolution=4, growth=1.6, table_size=2**8, half_size=0.65), 16, generator
    )
    view = ReferenceView(blank, blank[..., 0], blank, CAMERAS[[0]], "a ball", blank)
    mesh = ball()
    polishing = Polishing(PolishConfig(size=32), TurnedNormals(mesh, 32, factors), view, mesh, colors, generator)
    assert prior_agreement(polishing, mesh, generator) == pytest.approx(expected, abs=1e-5)


class SilentPrior:
    """A normal prior that must not be asked."""

    image_size = 32

    def estimate(self, images: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        raise AssertionError("the prior was asked though its weight is 0")


QUICK = ("polish.normal_weight=0", "polish.size=32", "polish.steps=25", "polish.vertex_lr=0.002", "polish.views=1")


def polished_ball(rough: Mesh, *settings: str) -> Mesh:
    """What the steps of `polish --mesh` make of a mesh, the normal prior left out."""
    config = merged(Config(), {}, [*POLISHED, *QUICK, *settings]).polish
    generator = torch.Generator().manual_seed(0)
    colors = ColorField(
        GridSizes(n_levels=2, n_features=2, base_resolution=4, growth=1.6, table_size=2**8, half_size=0.65), 16, generator
    )
    seen = rough.render(CAMERAS[[0]].at_size(32), lambda points, normals: points, 1, True)
    view = ReferenceView(seen.rgb, seen.alpha, seen.normals_camera, CAMERAS[[0]].at_size(32), "a ball", seen.rgb)
    moving = SmoothVertices(rough.vertices, rough.faces, config.smoothness)
    polishing = Polishing(config, SilentPrior(), view, rough, colors, generator)
    losses = polishing_losses(polishing, moving, Preview(dict, None))
    optimizer = FlooredAdam(
        [{"params": list(moving.parameters()), "lr": config.vertex_lr, "floor": config.gradient_floor}], betas=config.betas
    )
    for step in range(config.steps):
        optimizer.zero_grad()
        sum(term.weight * term.loss for term in losses(step).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
    return rough.moved(moving().detach())


def roughness(mesh: Mesh) -> float:
    return roughness_deg(sample_surface(mesh.vertices, mesh.faces, 5000, torch.Generator().manual_seed(0)), 0.05)


def turned_deg(mesh: Mesh, true: Mesh) -> float:
    """Mean angle between the normals of the same vertices."""
    normals = (vertex_normals(each.vertices, each.faces) for each in (mesh, true))
    cosine = torch.stack(list(normals)).prod(0).sum(-1).clamp(-1, 1)
    return float(torch.rad2deg(cosine.acos()).mean())


def test_the_settings_of_a_given_mesh_take_bumps_away_and_keep_place_and_volume() -> None:
    true = ball()
    rough = true.moved(roughened(true.vertices, true.faces, 0.01, torch.Generator().manual_seed(1)))
    smooth = polished_ball(rough)
    assert turned_deg(rough, true) > 3
    assert turned_deg(smooth, true) < 0.6 * turned_deg(rough, true)
    assert roughness(smooth) < 0.6 * roughness(rough)
    off, before = (float((each.vertices - true.vertices).norm(dim=-1).mean()) for each in (smooth, rough))
    assert off < before
    corners = [each.vertices[each.faces] for each in (smooth, true)]
    volumes = [float((each[:, 0] * torch.linalg.cross(each[:, 1], each[:, 2])).sum() / 6) for each in corners]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.01)


def test_a_smoothing_step_that_reaches_far_leaves_noise_between_neighbours() -> None:
    """Why the settings of runs do not polish bumps away: what no step can move alone stays."""
    true = ball()
    rough = true.moved(roughened(true.vertices, true.faces, 0.01, torch.Generator().manual_seed(1)))
    far = polished_ball(rough, "polish.smoothness=30")
    assert roughness(far) > 0.9 * roughness(rough)
