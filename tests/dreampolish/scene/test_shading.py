"""Light and recolouring: closed forms, bounds, agreement between views."""

import pytest
import torch

from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.lighting import (
    Lighting,
    headlight,
    lighting_in_camera,
    pair_lighting,
    random_world_lighting,
    studio_lighting,
)
from dreampolish.scene.shading import (
    FACING_TOWARD,
    LEAST_FACING,
    MAX_SHADE,
    MIN_SHADE,
    facing_light,
    on_white,
    recolor,
    shade,
    wood_grain,
)


def test_headlight_is_one_towards_the_viewer_and_dim_at_the_rim() -> None:
    light = headlight(1, torch.tensor([0.4]))
    normals = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).T[None, :, :, None]
    torch.testing.assert_close(shade(normals, light)[0, 0, :, 0], torch.tensor([1.0, 0.6]))


def test_shade_follows_lamberts_law() -> None:
    light = Lighting(
        torch.tensor([[0.0, 1.0, 0.0]]),
        torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]),
        torch.tensor([[0.5, 0.1, 0.3, 0.2]]),
    )
    normal = torch.nn.functional.normalize(torch.tensor([1.0, 1.0, 1.0]), dim=0).view(1, 3, 1, 1)
    expected = 0.5 + 0.1 * (1 + 3**-0.5) / 2 + 0.5 * 3**-0.5
    torch.testing.assert_close(shade(normal, light).flatten(), torch.tensor([expected]))


def test_random_light_keeps_shades_bounded_and_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    lit = torch.arange(64) % 2 == 0
    light = random_world_lighting(64, lit, generator)
    normals = torch.nn.functional.normalize(torch.randn(64, 3, 40, 40, generator=generator), dim=1)
    factor = shade(normals, light)
    assert factor.min() >= MIN_SHADE
    assert factor.max() <= MAX_SHADE
    assert 0.75 < factor.mean() < 1.05
    assert factor[~lit].std() < 0.5 * factor[lit].std()


def test_world_light_is_the_same_on_a_surface_seen_from_two_sides() -> None:
    cameras = orbit_cameras(torch.tensor([0.0, 75.0]), torch.tensor([10.0, 30.0]), torch.tensor([20.0, 20.0]), 4)
    light = random_world_lighting(1, torch.tensor([True]), torch.Generator().manual_seed(1))
    both = Lighting(light.up.repeat(2, 1), light.toward.repeat(2, 1, 1), light.strengths.repeat(2, 1))
    world_normal = torch.nn.functional.normalize(torch.tensor([0.6, 0.5, 0.4]), dim=0)
    in_camera = torch.einsum("bji,j->bi", cameras.world_from_camera[:, :3, :3], world_normal)[:, :, None, None]
    factor = shade(in_camera, lighting_in_camera(both, cameras.world_from_camera)).flatten()
    torch.testing.assert_close(factor[0], factor[1])


def test_pair_lighting_gives_both_halves_one_scene() -> None:
    cameras = orbit_cameras(torch.zeros(8), torch.full((8,), 10.0), torch.full((8,), 20.0), 4)
    light = pair_lighting(cameras, 0.5, 0.5, torch.Generator().manual_seed(2))
    torch.testing.assert_close(light.toward[:4], light.toward[4:])
    torch.testing.assert_close(light.strengths[:4], light.strengths[4:])


def test_the_studio_lights_a_mirrored_surface_alike_and_each_side_of_a_box_differently() -> None:
    light = studio_lighting(1, torch.Generator().manual_seed(0))
    front, left, right, top, back = ([1.0, 0, 0], [0, 1.0, 0], [0, -1.0, 0], [0, 0, 1.0], [-1.0, 0, 0])
    factor = shade(torch.tensor([front, left, right, top, back]).T[None, :, :, None], light)[0, 0, :, 0]
    torch.testing.assert_close(factor[1], factor[2])
    assert factor[3] > factor[0] + 0.05 > factor[1] + 0.15 > factor[4] + 0.2
    torch.testing.assert_close(factor[4], torch.tensor(0.55))


def test_on_white() -> None:
    albedo = torch.full((1, 3, 1, 2), 0.25)
    coverage = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
    torch.testing.assert_close(on_white(albedo, coverage)[0, :, 0], torch.tensor([[1.0, 0.625]] * 3))


def test_recolor_reaches_the_target_and_keeps_relative_luminance() -> None:
    albedo = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).expand(1, 3, 1, 2).clone()
    paint = torch.ones(1, 1, 1, 2)
    target = torch.tensor([[0.5, 0.2, 0.1]])
    mean = torch.tensor([0.5])
    found = recolor(albedo, paint, target, mean, torch.ones(1))
    torch.testing.assert_close(found[0, :, 0, 0], target[0] * 0.8)
    torch.testing.assert_close(found[0, :, 0, 1], target[0] * 1.2)


def test_recolor_leaves_other_paints_alone_and_flattens_black() -> None:
    albedo = torch.zeros(1, 3, 1, 2)
    paint = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    target = torch.tensor([[0.9, 0.1, 0.1]])
    found = recolor(albedo, paint, target, torch.zeros(1), torch.ones(1))
    torch.testing.assert_close(found[0, :, 0, 0], target[0])
    torch.testing.assert_close(found[0, :, 0, 1], torch.zeros(3))


def test_wood_grain_is_mild_and_the_same_at_the_same_point() -> None:
    points = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 0.5
    first = wood_grain(points, torch.Generator().manual_seed(5))
    again = wood_grain(points.flip(-1), torch.Generator().manual_seed(5)).flip(-1)
    torch.testing.assert_close(first, again)
    assert float(first.min()) > 0.8
    assert float(first.max()) < 1.15


def test_a_white_surface_under_the_facing_light_is_darker_the_farther_it_turns_away() -> None:
    toward = torch.nn.functional.normalize(torch.tensor(FACING_TOWARD), dim=0)
    facing, level, away = facing_light(
        torch.stack([toward, torch.linalg.cross(toward, torch.eye(3)[0]), -toward])[None, None]
    ).flatten()
    assert (float(facing), float(away)) == pytest.approx((1.0, LEAST_FACING))
    assert float(level) == pytest.approx((1 + LEAST_FACING) / 2)
