"""stages/guidance/studio_light.py: the studio's light is found in a surface's colours, and taken out."""

import pytest
import torch
import trimesh

from dreampolish.mesh.topology import vertex_normals
from dreampolish.scene.cameras import orbit_cameras
from schemas.config.dmtet import LightConfig
from stages.guidance.reference_view import ReferenceView
from stages.guidance.studio_light import NO_LIGHT, PaintedLight, measured_light, render_in_light, smooth_normals, studio_factor
from stages.results.files import Mesh, mesh_from_parts

YELLOW, GREY = torch.tensor([0.8, 0.7, 0.1]), torch.tensor([0.3, 0.3, 0.35])
ROUNDS = LightConfig().smoothing_rounds


def reference_of(color: torch.Tensor, covered: float = 1.0) -> ReferenceView:
    """A picture of one colour, its middle the object."""
    camera = orbit_cameras(torch.zeros(1), torch.zeros(1), torch.full((1,), 20.0), 8)
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, 2:6] = covered
    rgb = torch.where(mask[..., None] > 0, color, torch.ones(3))
    return ReferenceView(rgb, mask, torch.zeros(1, 8, 8, 3), camera, "a thing", rgb)


@pytest.fixture
def normals() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator), dim=-1)


def test_the_studio_lights_a_front_whole_and_a_back_by_six_tenths() -> None:
    front_side_back_top = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0], [0, 0, 1.0]])
    # Ambient 0.5, sky 0.1 and two lamps of 0.3 at azimuth +-35, elevation 45: 0.9, 0.67, 0.55 and more than a front.
    expected = [[1.0], [0.672 / 0.898], [0.55 / 0.898], [1.0]]
    torch.testing.assert_close(studio_factor(front_side_back_top), torch.tensor(expected), atol=2e-3, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_share_of_the_light_is_found_among_other_colours(normals: torch.Tensor, share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    painted = torch.rand(len(normals), 1, generator=generator) < 0.6
    # Everything grey is on the back, as dark things in the shade would mislead a fit over all places.
    own = torch.where(painted | (normals[:, :1] > 0), YELLOW, GREY)
    grain = 1 + 0.03 * torch.randn(len(normals), 1, generator=generator)
    seen = own * grain * studio_factor(normals) ** share
    assert measured_light(seen, normals, reference_of(YELLOW), LightConfig()).shares == pytest.approx(
        (share, share, share), abs=0.03
    )


def test_a_cast_in_the_shade_is_found(normals: torch.Tensor) -> None:
    seen = YELLOW * studio_factor(normals) ** torch.tensor([0.9, 0.6, 0.3])
    light = measured_light(seen, normals, reference_of(YELLOW), LightConfig())
    assert light.shares == pytest.approx((0.9, 0.6, 0.3), abs=1e-3)
    torch.testing.assert_close(light.removed(seen, normals), YELLOW.expand(len(normals), 3), atol=1e-3, rtol=0)
    assert light.figures["light_removed_blue"] == light.shares[2]


def test_what_is_taken_out_is_put_on_again(normals: torch.Tensor) -> None:
    light = PaintedLight((0.7, 0.5, 0.6))
    own = YELLOW.expand(len(normals), 3)
    lit = light.on(lambda points, normals: own)(normals, normals)
    assert float(lit[:, 0].min()) < 0.75 * 0.8
    torch.testing.assert_close(light.removed(lit, normals), own)


def test_colours_stay_in_range(normals: torch.Tensor) -> None:
    assert float(PaintedLight((1.0, 1.0, 1.0)).removed(torch.full((len(normals), 3), 0.95), normals).max()) <= 1


def test_a_surface_that_is_lighter_in_the_shade_is_left_alone(normals: torch.Tensor) -> None:
    colors = YELLOW / studio_factor(normals) ** 0.3
    assert measured_light(colors, normals, reference_of(YELLOW), LightConfig()) == NO_LIGHT


def test_nothing_is_measured_on_a_surface_of_other_colours(normals: torch.Tensor) -> None:
    colors = YELLOW * studio_factor(normals)
    assert measured_light(colors, normals, reference_of(torch.tensor([0.1, 0.2, 0.8])), LightConfig()) == NO_LIGHT


def test_nothing_is_measured_where_all_places_are_lit_alike() -> None:
    normals = torch.tensor([[1.0, 0.0, 0.0]]).expand(500, 3)
    assert measured_light(YELLOW.expand(500, 3), normals, reference_of(YELLOW), LightConfig()) == NO_LIGHT


def test_no_light_changes_nothing(normals: torch.Tensor) -> None:
    def color_of(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        return points

    assert NO_LIGHT.on(color_of) is color_of
    assert torch.equal(NO_LIGHT.removed(normals.abs(), normals), normals.abs())


def test_a_reference_without_a_pixel_all_covered_will_do(normals: torch.Tensor) -> None:
    colors = YELLOW * studio_factor(normals)
    assert measured_light(colors, normals, reference_of(YELLOW, 0.8), LightConfig()).shares == pytest.approx(
        (1, 1, 1), abs=1e-3
    )


def bumpy_ball() -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    generator = torch.Generator().manual_seed(2)
    vertices = torch.from_numpy(ball.vertices).float()
    bumps = 1 + 0.01 * torch.randn(len(vertices), 1, generator=generator)
    return mesh_from_parts(vertices * bumps, torch.from_numpy(ball.faces))


def test_light_falls_on_a_surface_without_its_bumps() -> None:
    mesh = bumpy_ball()
    true = torch.nn.functional.normalize(mesh.vertices, dim=-1)
    error = [
        torch.rad2deg((normals * true).sum(-1).clamp(-1, 1).acos().mean()).item()
        for normals in (vertex_normals(mesh.vertices, mesh.faces), smooth_normals(mesh.vertices, mesh.faces, ROUNDS))
    ]
    assert error[0] > 5 and error[1] < 1


def test_a_render_in_the_studio_is_darker_behind() -> None:
    mesh = bumpy_ball()
    cameras = orbit_cameras(torch.tensor([0.0, 180.0]), torch.zeros(2), torch.full((2,), 20.0), 32)

    def middles(light: PaintedLight) -> torch.Tensor:
        return (
            render_in_light(mesh, cameras, lambda points, normals: YELLOW.expand(len(points), 3), light, 1, ROUNDS)
            .rgb[:, 14:18, 14:18]
            .mean((1, 2))
        )

    torch.testing.assert_close(middles(NO_LIGHT), YELLOW.expand(2, 3))
    front, back = middles(PaintedLight((1.0, 0.5, 1.0)))
    torch.testing.assert_close(front, YELLOW, atol=0.02, rtol=0)
    torch.testing.assert_close(back, YELLOW * (0.55 / 0.898) ** torch.tensor([1.0, 0.5, 1.0]), atol=0.02, rtol=0)
