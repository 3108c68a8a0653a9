"""Painted views as targets, on a tiny real view prior."""

from typing import Any

import pytest
import torch

from dreampolish.scene.cameras import Cameras, orbit_cameras
from schemas.config.shared.guidance import ViewTargetsConfig
from schemas.trainings import PriorsTraining
from stages.guidance.painted.painters import KnownView, SinglePainter
from stages.guidance.painted.view_targets import ViewTargets, coverage_of, inside
from stages.guidance.reference_view import ReferenceView
from tests.support.tiny_priors import tiny_view_prior

CONFIG = ViewTargetsConfig.model_validate(
    {"rgb_weight": 10.0, "mask_weight": 2.0, "n_views": 6, "paint_at": (0.0, 0.5), "sampling_steps": 2}
)


def _targets(config: ViewTargetsConfig = CONFIG, seed: int = 0) -> ViewTargets:
    prior = tiny_view_prior()
    reference = prior.condition(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(seed)
    painter = SinglePainter(prior, [KnownView(reference, 0.0, 10.0)], config, generator)
    return ViewTargets(config, 11, 8, painter, generator=generator)


def _grey(cameras: Cameras) -> torch.Tensor:
    return torch.full((len(cameras), cameras.size, cameras.size, 3), 0.5)


def test_views_are_painted_at_the_named_progress_only() -> None:
    targets, painted = _targets(), []
    for step in range(11):
        before = targets.pictures()
        targets.paint_if_due(step, _grey)
        if not torch.equal(before, targets.pictures()):
            painted.append(step)
    assert painted == [0, 5]
    assert targets.pictures().shape == (6, 8, 8, 3)


def test_nothing_is_asked_before_the_first_painting_and_nothing_is_lost_at_the_target() -> None:
    targets = _targets()
    chosen, cameras = targets.draw(4, 8)
    assert len(set(chosen.tolist())) == len(cameras) == 4
    assert targets.terms(0, chosen, _grey(cameras), torch.ones(4, 8, 8)) == {}
    targets.paint_if_due(0, _grey)
    wanted = targets.pictures()[chosen]
    covered = coverage_of(targets.pictures(), CONFIG.paper_tolerance, CONFIG.full_ink)[chosen]
    terms = targets.terms(0, chosen, wanted, covered)
    assert {name: (float(term.loss), term.weight) for name, term in terms.items()} == {
        "target_rgb": (0.0, 10.0),
        "target_mask": (0.0, 2.0),
    }
    off = targets.terms(0, chosen, wanted + 0.1, 1 - covered)
    torch.testing.assert_close(off["target_rgb"].loss, torch.tensor(0.01))
    assert off["target_mask"].loss > 0


@pytest.mark.parametrize("inside_only", [False, True])
def test_gradients_match_finite_differences(inside_only: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    targets = _targets(CONFIG.model_copy(update={"inside_only": inside_only}))
    targets.load_state_dict({"pictures": 0.5 * torch.rand(6, 8, 8, 3, generator=generator, dtype=torch.float64)})
    chosen, _ = targets.draw(2, 6)
    rgb = torch.rand(2, 6, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    opacity = 0.5 + 0.4 * torch.rand(2, 6, 6, generator=generator, dtype=torch.float64)
    opaque = torch.ones_like(opacity)
    opaque[:, 1] = 0.5  # the pixels above and below it count no longer as inside
    opacity.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: targets.terms(0, chosen, x, opaque)["target_rgb"].loss, (rgb,))
    assert torch.autograd.gradcheck(lambda x: targets.terms(0, chosen, rgb.detach(), x)["target_mask"].loss, (opacity,))
    counted = torch.autograd.grad(targets.terms(0, chosen, rgb, opaque)["target_rgb"].loss, rgb)[0].abs().amax(-1) > 0
    assert int(counted.sum()) == (2 * 3 * 6 if inside_only else 2 * 6 * 6)


def test_a_fresh_object_with_the_saved_state_goes_on_alike() -> None:
    first, second = _targets(), _targets(seed=5)
    first.paint_if_due(0, _grey)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.pictures(), second.pictures())


def test_drawn_cameras_are_those_of_the_pictures() -> None:
    targets = _targets()
    chosen, cameras = targets.draw(6, 16)
    assert sorted(chosen.tolist()) == list(range(6))
    torch.testing.assert_close(cameras.azimuth_deg, chosen * 60.0)
    torch.testing.assert_close(cameras.elevation_deg, torch.tensor([5.0, 35.0, 15.0])[chosen % 3])
    assert cameras.size == 16
    more, _ = targets.draw(9, 8)
    assert len(more) == 9


def test_only_pixels_whose_neighbours_are_opaque_are_inside() -> None:
    opacity = torch.zeros(1, 8, 8)
    opacity[:, 2:7, 2:7] = 1.0
    expected = torch.zeros(1, 8, 8)
    expected[:, 3:6, 3:6] = 1.0
    assert torch.equal(inside(opacity), expected)
    opacity[0, 4, 4] = 0.5
    assert inside(opacity).sum() == 0


def test_colours_at_the_edge_cost_nothing_where_only_the_inside_counts() -> None:
    targets = _targets(CONFIG.model_copy(update={"inside_only": True}))
    targets.paint_if_due(0, _grey)
    chosen, cameras = targets.draw(2, 8)
    nothing_covered = targets.terms(0, chosen, _grey(cameras), torch.zeros(2, 8, 8))
    assert float(nothing_covered["target_rgb"].loss) == 0


def test_coverage_is_one_inside_a_pale_or_dark_disc_its_share_at_the_outline_and_nothing_outside() -> None:
    rows, columns = torch.meshgrid(torch.arange(256.0) + 0.5, torch.arange(256.0) + 0.5, indexing="ij")
    inside_disc = ((rows - 128) ** 2 + (columns - 128) ** 2 < 80**2).float()
    share = inside_disc.view(64, 4, 64, 4).mean(dim=(1, 3))
    for shade in (0.0, 0.5, 0.85):
        picture = (1 - share * (1 - shade))[None, ..., None].expand(-1, -1, -1, 3)
        found = coverage_of(picture - 0.02, CONFIG.paper_tolerance, CONFIG.full_ink)
        assert abs(float(found.sum() / share.sum()) - 1) < 0.02
        assert (found - share).abs().max() < 0.5
        assert found[0, 0].max() == 0
        assert bool((found[0, 25:40, 25:40] == 1).all())


def test_faint_ground_becomes_white_and_keeps_its_coverage() -> None:
    targets = _targets()
    faint = torch.full((6, 8, 8, 3), 0.98)
    faint[:, 2:6, 2:6] = torch.tensor([0.8, 0.2, 0.2])
    targets.load_state_dict({"pictures": faint})
    assert torch.equal(targets.pictures()[:, 0], torch.ones(6, 8, 3))
    assert torch.equal(targets.pictures()[:, 2:6, 2:6], faint[:, 2:6, 2:6])
    tolerances = CONFIG.paper_tolerance, CONFIG.full_ink
    assert torch.equal(coverage_of(targets.pictures(), *tolerances), coverage_of(faint, *tolerances))


def test_the_view_prior_is_judged_as_it_is_used() -> None:
    assert PriorsTraining().view_sampling_steps == ViewTargetsConfig().sampling_steps
    assert PriorsTraining().view_guidance == ViewTargetsConfig().guidance_scale


def _square(azimuth_deg: float, columns: tuple[int, int]) -> ReferenceView:
    """A dark block on white, 8 pixels a side."""
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:6, columns[0] : columns[1]] = 1.0
    camera = orbit_cameras(torch.tensor([azimuth_deg]), torch.zeros(1), torch.tensor([20.0]), 8)
    picture = 1 - 0.8 * mask[..., None].expand(1, 8, 8, 3)
    return ReferenceView(picture, mask, torch.zeros(1, 8, 8, 3), camera, "a box", picture)


def test_views_beside_given_pictures_show_these_and_others_stay_in_their_hull() -> None:
    prior, config = tiny_view_prior(), CONFIG.model_copy(update={"elevations_deg": (5.0,)})
    given = [_square(0.0, (2, 6)), _square(102.0, (3, 5)), _square(-149.0, (2, 6))]
    known = [KnownView(prior.condition(each.original.permute(0, 3, 1, 2)), each.azimuth_deg, 0.0) for each in given]
    generator = torch.Generator().manual_seed(0)
    painter = SinglePainter(prior, known, config, generator)
    targets = ViewTargets(config, steps=11, size=8, painter=painter, given=given, generator=generator)
    azimuths = targets.cameras().azimuth_deg.tolist()
    # Every 60 degrees: the views at 0 and 120 lie within 20 degrees of a picture, that at 240 (29 degrees away) does not.
    assert azimuths == [0, 60, 102, 180, 240, 300]
    assert targets.cameras().elevation_deg.tolist() == [0, 5, 0, 5, 5, 5]
    for step in (0, 5):
        targets.paint_if_due(step, _grey)
        for place, picture in ((0, given[0]), (2, given[1])):
            assert torch.equal(targets.pictures()[place], picture.original[0])
            assert torch.equal(targets.coverage()[place], picture.mask[0])
        assert float(targets.coverage()[:, 0].max()) == 0  # no given picture shows anything so high
        assert float(targets.pictures()[:, 0].min()) == 1
    resumed = ViewTargets(config, steps=11, size=8, painter=painter, given=given, generator=generator)
    resumed.load_state_dict(targets.state_dict())
    assert torch.equal(resumed.pictures(), targets.pictures())
    assert torch.equal(resumed.coverage(), targets.coverage()), "what the hull cuts off is no outline of what it leaves"


def test_each_view_is_painted_from_the_nearest_picture_at_its_angle_from_there() -> None:
    prior, told = tiny_view_prior(), []
    views = torch.tensor([10.0, 80.0, 170.0, -100.0])
    cameras = orbit_cameras(views, torch.full((4,), 20.0), torch.full((4,), 20.0), 8)
    known = [KnownView(prior.condition(torch.rand(1, 3, 8, 8)), azimuth, 10.0) for azimuth in (0.0, 90.0, 180.0)]
    repaint = prior.repaint

    def noted(**given: Any) -> torch.Tensor:
        told.append((given["reference"], given["pose"]))
        return repaint(**given)

    prior.repaint = noted  # type: ignore[method-assign]
    painted = SinglePainter(prior, known, CONFIG, torch.Generator().manual_seed(3)).paint(torch.ones(4, 3, 8, 8), cameras, 1.0)
    assert [reference is each.condition for (reference, _), each in zip(told, known, strict=True)] == [True] * 3
    for (_, pose), turn in zip(told, ([10.0], [-10.0], [-10.0, 80.0]), strict=True):
        expected = prior.pose(torch.tensor(turn), torch.full((len(turn),), 20.0), 10.0)
        torch.testing.assert_close(pose, expected)
    # All share one noise: what the same picture is told of the same pose comes out the same.
    alone = SinglePainter(prior, known[:1], CONFIG, torch.Generator().manual_seed(3))
    torch.testing.assert_close(alone.paint(torch.ones(1, 3, 8, 8), cameras[[0]], 1.0), painted[[0]])
