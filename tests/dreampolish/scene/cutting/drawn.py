"""Pictures with known outlines, drawn at three times their size. Places are shares of a side, from the top left."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

FINER = 3
Colour = tuple[float, float, float]
Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Columns and rows to whether they lie in it."""
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Columns and rows to colours."""


@dataclass(frozen=True)
class Drawn:
    """A picture (h, w, 4) in [0, 1], and the object's true coverage (h, w)."""

    rgba: np.ndarray
    true: np.ndarray

    def overlap(self, alpha: np.ndarray) -> float:
        """Intersection over union of the mask at 0.5 and the true one."""
        found, true = alpha > 0.5, self.true > 0.5
        return float((found & true).sum() / (found | true).sum())


def ellipse(x: np.ndarray, y: np.ndarray, at: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    return ((x - at[0]) / radii[0]) ** 2 + ((y - at[1]) / radii[1]) ** 2 <= 1


def box(x: np.ndarray, y: np.ndarray, left_top: tuple[float, float], right_bottom: tuple[float, float]) -> np.ndarray:
    return (x >= left_top[0]) & (x <= right_bottom[0]) & (y >= left_top[1]) & (y <= right_bottom[1])


def chair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    legs = box(x, y, (0.30, 0.6), (0.36, 0.87)) | box(x, y, (0.64, 0.6), (0.70, 0.87))
    return box(x, y, (0.31, 0.16), (0.69, 0.56)) | box(x, y, (0.27, 0.53), (0.73, 0.65)) | legs


def red_chair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    colors = np.full((*x.shape, 3), (0.78, 0.16, 0.16))
    colors[box(x, y, (0.27, 0.53), (0.73, 0.65))] = (0.59, 0.12, 0.12)
    colors[ellipse(x, y, (0.38, 0.23), (0.04, 0.04))] = (0.12, 0.24, 0.78)
    return colors


def ball(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ellipse(x, y, (0.5, 0.52), (0.28, 0.28))


def lit(color: Colour, dark: float) -> Paint:
    """A ball's colours under a light from the top left; dark: the share of light in its shade."""

    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        right, down = (x - 0.5) / 0.28, (y - 0.52) / 0.28
        near = np.sqrt(np.clip(1 - right**2 - down**2, 0, 1))
        light = np.clip(-0.4 * right - 0.5 * down + 0.77 * near, 0, 1) * (1 - dark) + dark
        return light[..., None] * np.array(color)

    return paint


def glint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A red ball with a highlight as white as paper."""
    spot = np.exp(-((x - 0.42) ** 2 + (y - 0.42) ** 2) / 0.002)[..., None]
    return np.clip(lit((0.8, 0.1, 0.1), 0.45)(x, y) + 1.5 * spot, 0, 1)


def ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ellipse(x, y, (0.5, 0.5), (0.33, 0.33)) & ~ellipse(x, y, (0.5, 0.5), (0.2, 0.2))


def mug(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    handle = ellipse(x, y, (0.68, 0.5), (0.14, 0.15)) & ~ellipse(x, y, (0.68, 0.5), (0.085, 0.095))
    return box(x, y, (0.28, 0.28), (0.64, 0.76)) | handle


def bust(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ellipse(x, y, (0.5, 0.35), (0.2, 0.22)) | ellipse(x, y, (0.5, 1.0), (0.42, 0.45))


def pair(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ellipse(x, y, (0.28, 0.5), (0.17, 0.22)) | box(x, y, (0.58, 0.3), (0.86, 0.72))


def wheel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Thin: a rim and six spokes."""
    angle, radius = np.arctan2(y - 0.5, x - 0.5), np.hypot(x - 0.5, y - 0.5)
    spokes = (np.abs(np.sin(3 * angle)) * radius < 0.03) & (radius < 0.36)
    return ((radius < 0.38) & (radius > 0.355)) | spokes


def cube_faces(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Top, left and right."""
    corners = [(0.5 + 0.27 * np.cos(a), 0.52 + 0.27 * np.sin(a)) for a in np.pi / 6 + np.pi / 3 * np.arange(6)]
    middle = (0.5, 0.52)
    faces = []
    for around in ((3, 4, 5, None), (2, 3, None, 1), (1, None, 5, 0)):
        ends = [middle if number is None else corners[number] for number in around]
        inside = np.ones(x.shape, dtype=bool)
        for (x0, y0), (x1, y1) in zip(ends, ends[1:] + ends[:1], strict=True):
            inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
        faces.append(inside)
    return faces


def cube(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logical_or.reduce(cube_faces(x, y))


def white_cube(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Its top is nearly as white as paper."""
    top, left, _ = cube_faces(x, y)
    return np.where(top, 0.992, np.where(left, 0.93, 0.84))[..., None].repeat(3, axis=-1)


def flat(color: Colour) -> Paint:
    return lambda x, y: np.broadcast_to(np.array(color), (*x.shape, 3))


def slope(top: Colour, bottom: Colour, tilt: float) -> Paint:
    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        down = (y * (1 - tilt) + x * tilt)[..., None]
        return np.array(top) * (1 - down) + np.array(bottom) * down

    return paint


def vignette(color: Colour, strength: float, middle: tuple[float, float]) -> Paint:
    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array(color) * (1 - 2 * strength * ((x - middle[0]) ** 2 + (y - middle[1]) ** 2))[..., None]

    return paint


def horizon(wall: Colour, floor: Colour, tilt: float, soft: float) -> Paint:
    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        below = np.clip((y - 0.58 - tilt * (x - 0.5)) / soft + 0.5, 0, 1)[..., None]
        return np.array(wall) * (1 - below) + np.array(floor) * below

    return paint


def shaded(ground: Paint, at: tuple[float, float], radii: tuple[float, float], depth: float, blur: float) -> Paint:
    """A ground with a shadow on it. blur: of its edge, as a share of its radii."""

    def paint(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        away = np.sqrt(((x - at[0]) / radii[0]) ** 2 + ((y - at[1]) / radii[1]) ** 2)
        inside = np.clip((1 + blur - away) / (2 * blur), 0, 1)
        return ground(x, y) * (1 - depth * inside**2 * (3 - 2 * inside))[..., None]

    return paint


def over(size: int, shape: Shape, own: Paint, ground: Paint, blur: float = 0.0) -> Drawn:
    """An opaque picture of an object over a ground. blur: of its outline, pixels."""
    x, y = places(size * FINER)
    mask = ndimage.gaussian_filter(shape(x, y).astype(float), blur * FINER)
    rgb = mask[..., None] * own(x, y) + (1 - mask[..., None]) * ground(x, y)
    return Drawn(np.dstack([eight_bits(averaged(rgb)), np.ones((size, size))]), averaged(mask))


def with_alpha(size: int, shape: Shape, own: Paint) -> Drawn:
    """A clean picture with alpha."""
    x, y = places(size * FINER)
    mask = averaged(shape(x, y).astype(float))
    sums = averaged(shape(x, y)[..., None] * own(x, y))
    return Drawn(np.dstack([eight_bits(sums / np.maximum(mask, 1e-6)[..., None]), eight_bits(mask)]), mask)


def places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of a square picture's pixels."""
    steps = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(steps, steps)
    return x, y


def averaged(fine: np.ndarray) -> np.ndarray:
    size = len(fine) // FINER
    return fine.reshape(size, FINER, size, FINER, *fine.shape[2:]).mean(axis=(1, 3))


def eight_bits(values: np.ndarray) -> np.ndarray:
    return np.round(np.clip(values, 0, 1) * 255) / 255


def noisy(picture: Drawn, deviation: float) -> Drawn:
    noise = np.random.default_rng(0).normal(0, deviation, picture.rgba[..., :3].shape)
    return Drawn(np.dstack([eight_bits(picture.rgba[..., :3] + noise), picture.rgba[..., 3]]), picture.true)


def saved_as(picture: Drawn, kind: str, quality: int) -> Drawn:
    """After a JPEG or WebP of a quality from 1 to 100."""
    file = io.BytesIO()
    Image.fromarray((picture.rgba[..., :3] * 255).round().astype(np.uint8)).save(file, kind, quality=quality)
    return Drawn(np.dstack([np.asarray(Image.open(file).convert("RGB"), float) / 255, picture.rgba[..., 3]]), picture.true)
