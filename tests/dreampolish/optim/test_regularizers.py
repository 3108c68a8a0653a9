"""Regularisers: closed forms, degenerate inputs and gradients."""

import math

import pytest
import torch

from dreampolish.optim.regularizers import (
    depth_correlation_loss,
    distortion_loss,
    eikonal_loss,
    normal_cosine_loss,
    normal_derivative_loss,
    normal_jitter_loss,
    normal_smooth_loss,
    opacity_entropy_loss,
    orientation_loss,
    sparsity_loss,
)


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def unit(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


def test_opacity_entropy_is_ln_2_at_a_half_and_nothing_at_the_ends() -> None:
    assert float(opacity_entropy_loss(torch.full((1, 2, 2), 0.5))) == pytest.approx(math.log(2), rel=1e-6)
    ends = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    loss = opacity_entropy_loss(ends)
    loss.backward()
    assert float(loss.detach()) < 2e-4
    assert bool(ends.grad.isfinite().all())


def test_sparsity_of_constant_opacity() -> None:
    assert float(sparsity_loss(torch.full((2, 3, 3), 0.4))) == pytest.approx(math.sqrt(0.17), rel=1e-6)


def test_orientation_counts_only_what_faces_away() -> None:
    normals = torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0]])
    directions = torch.tensor([[0.0, 0, -1]]).expand(3, 3)
    weights = torch.tensor([1.0, 3.0, 4.0], requires_grad=True)
    assert float(orientation_loss(weights, normals, directions)) == pytest.approx(3 / 8)
    assert float(orientation_loss(torch.zeros(0), torch.zeros(0, 3), torch.zeros(0, 3))) == 0


def test_distortion_is_the_formula_of_the_paper_summed_over_all_pairs() -> None:
    ends = rand(3, 6).cumsum(dim=1)
    starts, weights = torch.cat([torch.zeros(3, 1), ends[:, :-1]], dim=1), rand(6, 3).T
    middles = (starts + ends) / 2
    pairs = weights[:, :, None] * weights[:, None, :] * (middles[:, :, None] - middles[:, None, :]).abs()
    expected = (pairs.sum((1, 2)) + (weights.square() * (ends - starts)).sum(1) / 3).mean()
    assert float(distortion_loss(weights, starts, ends)) == pytest.approx(float(expected))
    # All of the light in one thin place costs next to nothing, in two places their distance: 2 * 1/4 * 0.5.
    alone, halves = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.5]])
    starts = torch.tensor([[1.0, 1.25, 1.5]])
    assert float(distortion_loss(alone, starts, starts + 1e-4)) < 1e-4
    assert float(distortion_loss(halves, starts, starts + 1e-4)) == pytest.approx(0.25, abs=1e-4)
    assert float(distortion_loss(torch.zeros(0, 0), torch.zeros(0, 0), torch.zeros(0, 0))) == 0


def test_eikonal_of_scaled_unit_vectors() -> None:
    gradients = 1.5 * unit(rand(20, 3))
    assert float(eikonal_loss(gradients)) == pytest.approx(0.25)
    zero = torch.zeros(1, 3, requires_grad=True)
    eikonal_loss(zero).backward()
    assert bool(zero.grad.isfinite().all())
    assert float(eikonal_loss(torch.zeros(0, 3))) == 0


def test_normal_cosine_drops_the_worst_pixels() -> None:
    target = torch.zeros(1, 2, 5, 3)
    target[..., 2] = 1
    normals = target.clone()
    normals[0, 0, 0] = torch.tensor([0.0, 0, -1])
    mask = torch.ones(1, 2, 5, dtype=torch.bool)
    assert float(normal_cosine_loss(normals, target, mask, 1.0)) == pytest.approx(0.2)
    assert float(normal_cosine_loss(normals, target, mask, 0.9)) == 0
    assert float(normal_cosine_loss(normals, target, torch.zeros_like(mask), 0.9)) == 0


def test_normal_derivative_ignores_a_constant_error() -> None:
    target, mask = rand(1, 4, 4, 3), torch.ones(1, 4, 4, dtype=torch.bool)
    assert float(normal_derivative_loss(target + 0.3, target, mask, 1.0)) == pytest.approx(0, abs=1e-9)
    doubled = normal_derivative_loss(2 * target, target, mask, 1.0)
    differences = [(target[:, :, 1:] - target[:, :, :-1]).abs().sum(-1), (target[:, 1:] - target[:, :-1]).abs().sum(-1)]
    assert float(doubled) == pytest.approx(float(torch.cat([d.reshape(-1) for d in differences]).mean()))
    assert float(normal_derivative_loss(2 * target, target, torch.zeros_like(mask), 1.0)) == 0


@pytest.mark.parametrize("keep", [0.7, 1.0])
def test_gradients_match_finite_differences(keep: float) -> None:
    normals, target = rand(1, 3, 4, 3).requires_grad_(), unit(rand(1, 3, 4, 3))
    mask = rand(1, 3, 4) > 0.2
    opacity = (0.1 + 0.8 * rand(1, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda n: normal_cosine_loss(n, target, mask, keep), (normals,))
    assert torch.autograd.gradcheck(lambda n: normal_derivative_loss(n, target, mask, keep), (normals,))
    assert torch.autograd.gradcheck(opacity_entropy_loss, (opacity,))
    assert torch.autograd.gradcheck(sparsity_loss, (opacity,))
    ends = rand(2, 4).cumsum(dim=1)
    assert torch.autograd.gradcheck(lambda w: distortion_loss(w, ends - 0.1, ends), (rand(4, 2).T.clone().requires_grad_(),))
    assert torch.autograd.gradcheck(eikonal_loss, (rand(5, 3).requires_grad_(),))


def test_gradients_of_terms_on_samples_match_finite_differences() -> None:
    normals, directions = (unit(rand(n, 3) - 0.5)[:6].requires_grad_() for n in (6, 8))
    weights = rand(6)
    assert 0 < int(((normals * directions).sum(-1) > 0).sum()) < 6
    assert torch.autograd.gradcheck(lambda n, d: orientation_loss(weights, n, d), (normals, directions))
    ends = rand(2, 4).cumsum(dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: distortion_loss(rand(4, 2).T, e - 0.1, e), (ends,))


def test_weights_of_samples_are_held_constant() -> None:
    normals, directions = (unit(rand(n, 3) - 0.5)[:6].requires_grad_() for n in (6, 7))
    weights = rand(6).requires_grad_()
    pulls = torch.autograd.grad(orientation_loss(weights, normals, directions), (weights, normals), allow_unused=True)
    assert pulls[0] is None
    assert pulls[1].norm() > 0


def test_depth_correlation_ignores_scale_and_origin_and_ends_at_two() -> None:
    reference, mask = rand(1, 5, 6), (rand(1, 5, 6) > 0.3).double()
    for factor, expected in ((3.0, 0.0), (-0.2, 2.0)):
        loss = depth_correlation_loss(factor * reference + 7, reference, mask)
        assert float(loss) == pytest.approx(expected, abs=1e-9)
    # By hand: (1, 2, 3) and (1, 3, 2) correlate by 1/2; what lies outside of the mask does not count.
    ours, theirs = torch.tensor([[[1.0, 2.0, 3.0, 99.0]]]), torch.tensor([[[1.0, 3.0, 2.0, -5.0]]])
    mask = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    assert float(depth_correlation_loss(ours, theirs, mask)) == pytest.approx(0.5)
    even = torch.ones(1, 1, 4, requires_grad=True)
    loss = depth_correlation_loss(even, theirs, mask)
    loss.backward()
    assert float(loss.detach()) == 0
    assert bool(even.grad.isfinite().all())
    assert float(depth_correlation_loss(ours, theirs, torch.zeros(1, 1, 4))) == 0
    depth = rand(1, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: depth_correlation_loss(x, rand(1, 4, 5)[..., :4], torch.ones(1, 4, 4)), (depth,))


def test_smooth_normals_cost_nothing_and_a_step_costs_its_height() -> None:
    flat = torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 4, 3)
    assert float(normal_smooth_loss(flat, torch.ones(1, 2, 4))) == 0
    stepped = flat.clone()
    stepped[:, :, 2:] = torch.tensor([0.0, 0.0, -1.0])
    # One of three columns of neighbours differs by 1 in one of three channels.
    assert float(normal_smooth_loss(stepped, torch.ones(1, 2, 4))) == pytest.approx(1 / 9)
    assert float(normal_jitter_loss(flat[0, 0], stepped[0, 0])) == pytest.approx(2 * 2 / (4 * 3))
    assert float(normal_jitter_loss(torch.zeros(0, 3), torch.zeros(0, 3))) == 0
