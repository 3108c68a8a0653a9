"""Regularisers: closed forms, degenerate inputs and gradients."""

import math

import pytest
import torch

from dreampolish.optim.regularizers import (
    depth_correlation_loss,
    distortion_loss,
    eikonal_loss,
    field_smoothness_loss,
    laplace_loss,
    normal_cosine_loss,
    normal_derivative_loss,
    normal_smoothness_loss,
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


def test_laplace_of_a_sphere_is_two_over_its_radius() -> None:
    points, step = 0.5 * unit(rand(30, 3) - 0.5), 1e-3
    offsets = step * torch.eye(3, dtype=torch.float64)
    shifted = torch.cat([points[:, None] + offsets, points[:, None] - offsets], dim=1).norm(dim=-1)
    assert float(laplace_loss(points.norm(dim=-1), shifted, step)) == pytest.approx(4.0, rel=1e-4)
    assert float(laplace_loss(torch.zeros(0), torch.zeros(0, 6), step)) == 0


def test_field_smoothness_is_a_weighted_mean_distance() -> None:
    normals, moved = torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    assert float(field_smoothness_loss(normals, moved, torch.tensor([3.0, 1.0]))) == pytest.approx(0.5)


def test_normal_smoothness_of_a_fold() -> None:
    normals = torch.zeros(1, 4, 4, 3)
    normals[:, :, :2, 0], normals[:, :, 2:, 1] = 1, 1
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    assert float(normal_smoothness_loss(normals, mask)) == pytest.approx(2 * 4 / 12)  # 4 of 12 horizontal pairs
    mask[:, :, 2:] = False
    assert float(normal_smoothness_loss(normals, mask)) == 0
    assert float(normal_smoothness_loss(normals, torch.zeros_like(mask))) == 0


def test_depth_correlation_ignores_scale_and_shift() -> None:
    target, mask = rand(1, 5, 5), torch.ones(1, 5, 5, dtype=torch.bool)
    assert float(depth_correlation_loss(3 * target + 2, target, mask)) == pytest.approx(0, abs=1e-9)
    assert float(depth_correlation_loss(-target, target, mask)) == pytest.approx(2)


def test_depth_correlation_of_degenerate_inputs_is_one_with_finite_gradients() -> None:
    target, mask = rand(1, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool)
    flat = torch.ones(1, 3, 3, dtype=torch.float64, requires_grad=True)
    for chosen in (mask, torch.zeros_like(mask)):
        loss = depth_correlation_loss(flat, target, chosen)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(1)
    assert bool(flat.grad.isfinite().all())


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
    far = rand(1, 9)[0].flip(0).view(1, 3, 3)
    depth, opacity = rand(1, 3, 3).requires_grad_(), (0.1 + 0.8 * rand(1, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda n: normal_cosine_loss(n, target, mask, keep), (normals,))
    assert torch.autograd.gradcheck(lambda n: normal_derivative_loss(n, target, mask, keep), (normals,))
    assert torch.autograd.gradcheck(lambda n: normal_smoothness_loss(n, mask), (normals,))
    assert torch.autograd.gradcheck(lambda d: depth_correlation_loss(d, far, far > 0.1), (depth,))
    assert torch.autograd.gradcheck(opacity_entropy_loss, (opacity,))
    assert torch.autograd.gradcheck(sparsity_loss, (opacity,))
    ends = rand(2, 4).cumsum(dim=1)
    assert torch.autograd.gradcheck(lambda w: distortion_loss(w, ends - 0.1, ends), (rand(4, 2).T.clone().requires_grad_(),))
    assert torch.autograd.gradcheck(eikonal_loss, (rand(5, 3).requires_grad_(),))


def test_gradients_of_terms_on_samples_match_finite_differences() -> None:
    normals, moved, directions = (unit(rand(n, 3) - 0.5)[:6].requires_grad_() for n in (6, 7, 8))
    weights, sdf, shifted = rand(6), rand(1, 6)[0].requires_grad_(), rand(6, 6).requires_grad_()
    assert 0 < int(((normals * directions).sum(-1) > 0).sum()) < 6
    assert torch.autograd.gradcheck(lambda n, d: orientation_loss(weights, n, d), (normals, directions))
    assert torch.autograd.gradcheck(lambda n, m: field_smoothness_loss(n, m, weights), (normals, moved))
    assert torch.autograd.gradcheck(lambda f, around: laplace_loss(f, around, 0.5), (sdf, shifted))
    ends = rand(2, 4).cumsum(dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: distortion_loss(rand(4, 2).T, e - 0.1, e), (ends,))


def test_weights_of_samples_are_held_constant() -> None:
    normals, moved = (unit(rand(n, 3) - 0.5)[:6].requires_grad_() for n in (6, 7))
    weights = rand(6).requires_grad_()
    for loss in (orientation_loss(weights, normals, moved), field_smoothness_loss(normals, moved, weights)):
        pulls = torch.autograd.grad(loss, (weights, normals), allow_unused=True)
        assert pulls[0] is None
        assert pulls[1].norm() > 0
