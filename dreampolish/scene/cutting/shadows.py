"""Soft shadows on a background: darker shades of its colour that set in gradually."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

DARKEST = -1.6
"""Logarithm of the least share of light in a shadow. [choice]"""
TINT = 0.012
"""How far a shadow's colour may be off a shade of the background, beside the tolerance. [choice]"""
SHARPNESS, FAINTEST_EDGE = 1.5, 0.0017
"""An edge is sharp where its slope is so many times that of the picture three times as blurred, and at least so steep. [choice]"""
FINE, COARSE, USUAL_SIDE = (0.6, 1.0), (1.6, 3.0), 256
"""Least and usual deviations, pixels, at which slopes are seen, and the side of a picture from which they are usual. [choice]"""
SHARP_RIM = 0.35
"""Share of its edge towards the background beyond which a shade is no soft shadow. [choice]"""
SQUARE = np.ones((3, 3))


def slope(picture: Float[np.ndarray, "h w 3"], least_and_usual: tuple[float, float]) -> Float[np.ndarray, "h w"]:
    """Root mean square over the channels, per pixel; in small pictures at a smaller deviation."""
    least, usual = least_and_usual
    deviation = max(least, usual * min(1.0, min(picture.shape[:2]) / USUAL_SIDE))
    squares = [ndimage.gaussian_gradient_magnitude(picture[..., k], deviation, mode="nearest") ** 2 for k in range(3)]
    return np.sqrt(np.mean(squares, axis=0))


def sharp_edges(
    picture: Float[np.ndarray, "h w 3"], steep: Float[np.ndarray, "h w"], tolerance: Float[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Where colours change within a pixel or two. steep: the slope at FINE."""
    return (steep > np.maximum(FAINTEST_EDGE, 0.35 * tolerance)) & (steep > SHARPNESS * slope(picture, COARSE))


def flooded(open_to: Bool[np.ndarray, "h w"], also_from: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What is reached from the picture's sides, and from `also_from`."""
    labels, _ = ndimage.label(open_to)
    ends = [labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[also_from]]
    reached = np.unique(np.concatenate([each.ravel() for each in ends]))
    return np.isin(labels, reached[reached > 0])


def shaded(
    picture: Float[np.ndarray, "h w 3"], colors: Float[np.ndarray, "h w 3"], tolerance: Float[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Where a picture shows a darker shade of the background's colours, or the colours themselves."""
    dark = 0.02
    ratio = np.log((np.maximum(picture, 0) + dark) / (np.maximum(colors, 0) + dark))
    mean = ratio.mean(axis=2)
    tint = (np.abs(ratio - mean[..., None]) * (np.maximum(picture, 0) + dark)[..., :]).max(axis=2)
    return (mean < 0.02 + tolerance) & (mean > DARKEST) & (tint <= TINT + 1.2 * tolerance)


def soft_shadow(
    shades: Bool[np.ndarray, "h w"], sharp: Bool[np.ndarray, "h w"], background: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Shades that a flood reaches from the background without crossing a sharp edge, through gaps of 3 pixels at least.

    A part whose edge towards the background is sharp is none: the flood leaked into the object.
    """
    allowed = (shades & ~sharp) | background
    core = ndimage.binary_erosion(allowed, SQUARE, border_value=1) | background
    found = ndimage.binary_dilation(flooded(core, background), SQUARE) & allowed & ~background
    labels, count = ndimage.label(found, SQUARE)
    edge = ndimage.binary_dilation(background, iterations=2) & found
    whole = np.bincount(labels[edge], minlength=count + 1)
    hard = np.bincount(labels[edge & ndimage.binary_dilation(sharp)], minlength=count + 1)
    leaked = np.flatnonzero(hard > SHARP_RIM * np.maximum(whole, 1))
    return found & ~np.isin(labels, leaked[leaked > 0])
