"""The losses on the reference view."""

import pytest
import torch
from torch import Tensor

from dreampolish.scene.cameras import orbit_cameras
from schemas.config.shared.geometry import AnchorConfig
from stages.guidance.reference_view import ReferenceView, anchor_terms

ANCHORS = AnchorConfig.model_validate({"rgb": 3.0, "mask": 2.0, "normal": 5.0})


def rand(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


def reference() -> ReferenceView:
    camera = orbit_cameras(torch.zeros(1), torch.zeros(1), torch.full((1,), 20.0), 4)
    rgb, normals = rand(0, 1, 4, 4, 3), unit(rand(1, 1, 4, 4, 3) - 0.5)
    return ReferenceView(rgb, (rand(2, 1, 4, 4) > 0.4).double(), normals, camera, "a box", rgb)


def test_a_render_that_is_the_reference_costs_nothing_and_turned_normals_cost_one_less_their_cosine() -> None:
    view = reference()
    terms = anchor_terms(ANCHORS, (0, 2), view, view.rgb, view.mask, view.normals_camera)
    assert {name: term.weight for name, term in terms.items()} == {
        "reference_rgb": 3.0,
        "reference_mask": 2.0,
        "reference_normal": 5.0,
    }
    assert all(float(term.loss) == pytest.approx(0, abs=1e-12) for term in terms.values())
    off = anchor_terms(ANCHORS, (0, 2), view, view.rgb + 0.1, view.mask - 0.2, -view.normals_camera)
    assert {name: float(term.loss) for name, term in off.items()} == pytest.approx(
        {"reference_rgb": 0.01, "reference_mask": 0.04, "reference_normal": 2.0}
    )


def test_what_is_not_rendered_or_weighs_nothing_is_left_out() -> None:
    view = reference()
    assert set(anchor_terms(ANCHORS, (0, 2), view, None, view.mask, None)) == {"reference_mask"}
    free = AnchorConfig.model_validate({"rgb": 0.0, "mask": 0.0, "normal": 0.0})
    assert anchor_terms(free, (0, 2), view, view.rgb, view.mask, view.normals_camera) == {}


@pytest.mark.parametrize("name", ["reference_rgb", "reference_mask", "reference_normal"])
def test_gradients_match_finite_differences(name: str) -> None:
    view = reference()
    rgb, opacity, normals = rand(3, 1, 4, 4, 3), rand(4, 1, 4, 4), unit(rand(5, 1, 4, 4, 3) - 0.5)

    def loss(**rendered: Tensor) -> Tensor:
        seen = {"rgb": rgb, "opacity": opacity, "normals_camera": normals, **rendered}
        return anchor_terms(ANCHORS, (0, 2), view, **seen)[name].loss

    own = {"reference_rgb": "rgb", "reference_mask": "opacity", "reference_normal": "normals_camera"}[name]
    given = {"rgb": rgb, "opacity": opacity, "normals_camera": normals}[own].requires_grad_()
    assert torch.autograd.gradcheck(lambda picture: loss(**{own: picture}), (given,))


def test_what_normals_cost_pulls_no_coverage() -> None:
    view, opacity = reference(), rand(4, 1, 4, 4).requires_grad_()
    terms = anchor_terms(ANCHORS, (0, 2), view, None, opacity, unit(rand(5, 1, 4, 4, 3) - 0.5))
    assert not terms["reference_normal"].loss.requires_grad
