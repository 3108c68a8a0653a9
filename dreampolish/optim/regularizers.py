"""Losses that ask for a plausible shape rather than for a picture.

Every function returns one unweighted, non-negative scalar, differentiable, and finite for finite inputs; an empty selection gives 0.
Pictures are (B, H, W) or (B, H, W, 3); masks are boolean.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_SAFE = 1e-5
"""Opacities and divisors stay this far from 0, opacities also from 1, so that gradients stay finite."""

_SPARSITY_SOFTNESS = 0.01
"""Added to the squared opacity under sparsity's root (source: DreamFusion)."""


def opacity_entropy_loss(opacity: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Mean binary entropy of the opacities, nats, in [0, ln 2]: pixels shall be either empty or solid (source: DreamFusion)."""
    p = opacity.clamp(_SAFE, 1 - _SAFE)
    return -(p * p.log() + (1 - p) * torch.log1p(-p)).mean()


def sparsity_loss(opacity: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Mean of sqrt(opacity^2 + 0.01): less matter, with a gradient that fades where there is none (source: DreamFusion)."""
    return (opacity.square() + _SPARSITY_SOFTNESS).sqrt().mean()


def orientation_loss(
    weights: Float[Tensor, " n"], normals: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
) -> Float[Tensor, ""]:
    """Visible samples shall not face away: sum of weight * max(0, normal . direction)^2, over the sum of weights
    (source: Ref-NeRF, arXiv:2112.03907, Eq. 11).

    Warning: weights are held constant, as in the open recipes, or the loss would rather make the sample transparent.
    """
    away = (normals * directions).sum(dim=-1).clamp(min=0).square()
    held = weights.detach()
    return (held * away).sum() / held.sum().clamp(min=_SAFE)


def normal_smooth_loss(normals: Float[Tensor, "b h w 3"], opacity: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Mean square difference of vertical neighbours plus that of horizontal ones in the pictures (n + 1) / 2 * opacity
    (source: DreamCraft3D, lambda_normal_smooth)."""
    picture = (normals + 1) / 2 * opacity[..., None]
    return (picture[:, 1:] - picture[:, :-1]).square().mean() + (picture[:, :, 1:] - picture[:, :, :-1]).square().mean()


JITTER = 0.01
"""Standard deviation of the way to the place near a sample, world units (source: threestudio's volume renderer)."""


def normal_jitter_loss(normals: Float[Tensor, "n 3"], nearby: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean absolute difference of unit normals from those near them (source: DreamCraft3D, lambda_3d_normal_smooth); 0 of none."""
    return (normals - nearby).abs().mean() if len(normals) else normals.sum()


def depth_correlation_loss(
    depth: Float[Tensor, "b h w"], reference: Float[Tensor, "b h w"], mask: Float[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """1 - Pearson's correlation of two depths over the pixels where mask > 0.5, in [0, 2]; whatever scale and origin the reference has
    (source: DreamCraft3D, lambda_depth_rel). 0 where fewer than two pixels count or one of the depths is even."""
    seen = mask > 0.5
    ours, theirs = depth[seen], reference[seen]
    if len(ours) < 2:
        return depth.sum() * 0
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    squares = ours.square().sum() * theirs.square().sum()
    if float(squares.detach()) < _SAFE**4:
        return depth.sum() * 0
    return 1 - (ours * theirs).sum() / squares.sqrt()


def distortion_loss(
    weights: Float[Tensor, "r s"], t_starts: Float[Tensor, "r s"], t_ends: Float[Tensor, "r s"]
) -> Float[Tensor, ""]:
    """What stops a ray shall lie in one place: mean over rays of sum_ij w_i w_j |t_i - t_j| + sum_i w_i^2 length_i / 3, t in the
    middles of intervals, world units (source: mip-NeRF 360, arXiv:2111.12077, Eq. 15). Intervals run away from the eye.
    """
    middles, lengths = (t_starts + t_ends) / 2, t_ends - t_starts
    before = weights.cumsum(dim=1) - weights
    moment_before = (weights * middles).cumsum(dim=1) - weights * middles
    apart = 2 * (weights * (middles * before - moment_before)).sum(dim=1)
    within = (weights.square() * lengths).sum(dim=1) / 3
    return (apart + within).sum() / max(len(weights), 1)


def eikonal_loss(gradients: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean of (|gradient| - 1)^2: an SDF grows by one per unit. The norm's gradient at 0 is taken as 0."""
    if not len(gradients):
        return gradients.sum()
    return (torch.linalg.vector_norm(gradients, dim=-1) - 1).square().mean()


def _screen_differences(normals: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Differences between horizontal and vertical neighbours, and the masks where both pixels are on the object."""
    differences = [normals[:, :, 1:] - normals[:, :, :-1], normals[:, 1:] - normals[:, :-1]]
    return differences, [mask[:, :, 1:] & mask[:, :, :-1], mask[:, 1:] & mask[:, :-1]]


def _robust_mean(errors: Tensor, keep_quantile: float) -> Tensor:
    """Mean of the smallest share of the errors (source: Wonder3D: the worst pixels are the estimator's faults); 0 of none."""
    if not len(errors):
        return errors.sum()
    kept = max(1, int(keep_quantile * len(errors)))
    return errors.topk(kept, largest=False).values.mean()


def normal_cosine_loss(
    normals: Float[Tensor, "b h w 3"],
    target: Float[Tensor, "b h w 3"],
    mask: Bool[Tensor, "b h w"],
    keep_quantile: float,
) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between unit normals on the mask, over the best `keep_quantile` (0, 1] of its pixels."""
    errors = 1 - (normals * target).sum(dim=-1)
    return _robust_mean(errors[mask], keep_quantile)


def normal_derivative_loss(
    normals: Float[Tensor, "b h w 3"],
    target: Float[Tensor, "b h w 3"],
    mask: Bool[Tensor, "b h w"],
    keep_quantile: float,
) -> Float[Tensor, ""]:
    """Mean absolute error of the normals' differences between neighbouring pixels, that is of screen-space curvature [choice],
    over the best `keep_quantile` (0, 1] of the pixel pairs inside the mask. A constant error of direction costs nothing here.
    """
    ours, masks = _screen_differences(normals, mask)
    theirs, _ = _screen_differences(target, mask)
    errors = [(a - b).abs().sum(dim=-1)[m] for a, b, m in zip(ours, theirs, masks, strict=True)]
    return _robust_mean(torch.cat(errors), keep_quantile)
