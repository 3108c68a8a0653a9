"""Distances between pictures. Notation: pictures (B, H, W, C) in [0, 1], one score a picture."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

SSIM_SIGMA = 1.5
"""Standard deviation of SSIM's window, pixels (source: Wang et al. 2004)."""
SSIM_RADIUS = 5
"""Pixels from the middle to the border of SSIM's window (source: Wang et al. 2004)."""
SSIM_K1, SSIM_K2 = 0.01, 0.03
"""SSIM's stabilisers, shares of the range (source: Wang et al. 2004)."""


def psnr(first: Float[Tensor, "b h w c"], second: Float[Tensor, "b h w c"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio, dB, peak 1: -10 log10 of the mean squared error over pixels and channels; infinite if equal."""
    return -10 * torch.log10((first - second).square().mean((1, 2, 3)))


def ssim(first: Float[Tensor, "b h w c"], second: Float[Tensor, "b h w c"]) -> Float[Tensor, " b"]:
    """Structural similarity, -1..1, 1 if equal; differentiable.

    Wang et al. 2004: Gaussian window of sigma 1.5 cut to 11 x 11, K1 = 0.01, K2 = 0.03, population covariances, range 1, each
    channel alone, mean over channels and over places where the window fits. Raises ValueError below 11 pixels a side.
    """
    return ssim_map(first, second).mean((1, 2, 3))


def ssim_map(first: Float[Tensor, "b h w c"], second: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c m n"]:
    """The similarity at each place where the window fits (`ssim`), 10 pixels fewer a side than the pictures."""
    if min(first.shape[1:3]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(f"SSIM needs pictures of 11 pixels a side or more, these are {tuple(first.shape[1:3])}")
    x, y = first.movedim(-1, 1), second.movedim(-1, 1)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x.square()
    variance_y = _windowed(y * y) - mean_y.square()
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return likeness / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2))


def _windowed(images: Tensor) -> Tensor:
    """Gaussian means of (b, c, h, w) pictures, no padding."""
    offsets = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    weights = weights / weights.sum()
    batch, channels = images.shape[:2]
    flat = images.reshape(batch * channels, 1, *images.shape[2:])
    smooth = conv2d(conv2d(flat, weights[None, None, :, None]), weights[None, None, None, :])
    return smooth.reshape(batch, channels, *smooth.shape[2:])


def mask_iou(first: Float[Tensor, "b h w"], second: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Intersection over union of coverages in [0, 1], pixel by pixel minimum over maximum; 1 if both are empty."""
    union = torch.maximum(first, second).sum((1, 2))
    shared = torch.minimum(first, second).sum((1, 2))
    return torch.where(union > 0, shared / union.clamp(min=1e-12), torch.ones_like(union))


def mean_normal_angle(
    first: Float[Tensor, "b h w 3"], second: Float[Tensor, "b h w 3"], mask: Float[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Mean angle between unit normals, degrees 0..180, weighted by `mask`; NaN where a mask is empty."""
    # atan2 keeps its precision at small angles, where acos does not.
    angle = torch.atan2(torch.linalg.cross(first, second).norm(dim=-1), (first * second).sum(-1))
    return (torch.rad2deg(angle) * mask).sum((1, 2)) / mask.sum((1, 2))


def mirror_symmetry(alpha: Float[Tensor, "h w"]) -> float:
    """Overlap of a centred silhouette with its mirror image, 0..1: the sum of the smaller over the sum of the larger values."""
    mirrored = alpha.flip(1)
    return float(torch.minimum(alpha, mirrored).sum() / torch.maximum(alpha, mirrored).sum().clamp_min(1e-6))
