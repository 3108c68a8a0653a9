"""How noisy a picture is, and what it would be without; where compression left rings around strong edges."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

from dreampolish.scene.cutting.background import BORDER

SEEN_NOISE = 1 / 255
"""Standard deviation from which a picture is smoothed. [choice]"""
SMOOTHING = 1.5
"""Weight of the total variation, in standard deviations of the noise. [choice]"""
STRONG, REACH, SEEN_RINGS = 0.15, 20, 0.008
"""Contrast around which compression rings, how far in pixels, and the ripple from which a picture counts as compressed. [choice]"""
RIPPLE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
"""Immerkaer's operator, Fast noise variance estimation, CVIU 64 (1996): it sees no plane, and multiplies a deviation by 6."""


def noise_of_border(rgb: Float[np.ndarray, "h w 3"]) -> float:
    """Standard deviation per channel, from the ripple along the sides."""
    ripple = np.stack([ndimage.convolve(rgb[..., channel], RIPPLE) for channel in range(3)], axis=-1)
    depth = max(4, round(2.5 * BORDER * min(rgb.shape[:2])))
    border = np.ones(rgb.shape[:2], dtype=bool)
    border[depth:-depth, depth:-depth] = False
    border[[0, -1]] = border[:, [0, -1]] = False
    return float(np.median(np.abs(ripple[border])) / 0.6745 / 6)


def smoothed(rgb: Float[np.ndarray, "h w 3"], noise: float) -> Float[np.ndarray, "h w 3"]:
    """By total variation, which keeps edges; a picture that is as good as free of noise stays as it is."""
    if noise <= SEEN_NOISE:
        return rgb
    return np.asarray(denoise_tv_chambolle(rgb, weight=SMOOTHING * noise, channel_axis=-1, eps=1e-4, max_num_iter=60))


def ringed(rgb: Float[np.ndarray, "h w 3"], contrast: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Where compression may have left rings and fringes: around strong contrasts of a picture that ripples there."""
    strong = contrast > STRONG
    if not strong.any():
        return strong
    distance = ndimage.distance_transform_edt(~strong)
    beside = (distance > 2.5) & (distance < 8) & (contrast < STRONG)
    if beside.sum() < 50:
        return np.zeros_like(strong)
    ripple = np.abs(rgb - ndimage.uniform_filter(rgb, (3, 3, 0))).max(axis=2)
    return distance < REACH if np.quantile(ripple[beside], 0.9) > SEEN_RINGS else np.zeros_like(strong)
