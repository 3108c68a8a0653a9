"""stages/painted_light.py: the studio's light is found in a surface's colours, and taken out."""

from types import SimpleNamespace

import pytest
import torch

from stages.painted_light import NO_LIGHT, PaintedLight, measured_light, studio_factor

YELLOW, GREY = torch.tensor([0.8, 0.7, 0.1]), torch.tensor([0.3, 0.3, 0.35])


def reference_of(color: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(rgb=color.expand(1, 8, 8, 3), mask=torch.ones(1, 8, 8))


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
    assert measured_light(seen, normals, reference_of(YELLOW)).shares == pytest.approx((share, share, share), abs=0.03)


def test_a_cast_in_the_shade_is_found(normals: torch.Tensor) -> None:
    seen = YELLOW * studio_factor(normals) ** torch.tensor([0.9, 0.6, 0.3])
    light = measured_light(seen, normals, reference_of(YELLOW))
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
    assert measured_light(colors, normals, reference_of(YELLOW)) == NO_LIGHT


def test_nothing_is_measured_on_a_surface_of_other_colours(normals: torch.Tensor) -> None:
    colors = YELLOW * studio_factor(normals)
    assert measured_light(colors, normals, reference_of(torch.tensor([0.1, 0.2, 0.8]))) == NO_LIGHT


def test_nothing_is_measured_where_all_places_are_lit_alike() -> None:
    normals = torch.tensor([[1.0, 0.0, 0.0]]).expand(500, 3)
    assert measured_light(YELLOW.expand(500, 3), normals, reference_of(YELLOW)) == NO_LIGHT


def test_no_light_changes_nothing(normals: torch.Tensor) -> None:
    def color_of(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
        return points

    assert NO_LIGHT.on(color_of) is color_of
    assert torch.equal(NO_LIGHT.removed(normals.abs(), normals), normals.abs())
