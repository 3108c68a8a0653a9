"""What lies behind a picture's object, by what its border shows: one smooth colour, a sweep from top to bottom, or a floor and a wall."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

BORDER = 0.02
"""Width of the border that tells of the background, as a share of the shorter side. [choice]"""
SAMPLES = 3000
"""Most pixels that a fit asks. [choice]"""
FINEST = 1.5 / 255
"""Least tolerance: what differs by less in 8 bits is one colour. [choice]"""
SPREAD = 5.0
"""Standard deviations of the border's noise that a background's pixel may be off. [choice]"""
BLOCKS = 0.03
"""Largest deviation per channel that blocks of compression leave in a smooth background. [choice]"""
DEGREES, LATER_DEGREE = (0, 1, 2), 4
"""Degrees of the polynomials that a border, and a whole background, may follow. [choice]"""
FOLD_STEPS = 24
"""Places along a side at which a floor is tried to meet the wall. [choice]"""

MOST_STRAY_END = 0.3
"""Share of a floor's, or a wall's, two ends that may differ from it. [choice]"""

Places = tuple[np.ndarray, np.ndarray]
"""Columns and rows in -1..1."""


@dataclass(frozen=True)
class Fold:
    """Where a floor meets a wall: at the left and the right side, shares of the height from the top."""

    left: float
    right: float

    def depth(self, places: Places) -> np.ndarray:
        """How far below the line places lie, in heights; above it below 0."""
        return (places[1] + 1) / 2 - (self.left + (self.right - self.left) * (places[0] + 1) / 2)


@dataclass(frozen=True)
class Background:
    """colors: behind every pixel. tolerance: largest difference per channel that the border's noise explains. off: pixels of the border
    that differ by more. floor: of a floor and a wall, where they meet. smooth: whether `refitted` can go on from it."""

    colors: Float[np.ndarray, "h w 3"]
    tolerance: float
    off: Bool[np.ndarray, "h w"]
    fold: Fold | None
    smooth: bool

    def stray(self, sides: int) -> float:
        """Share of the picture's outermost pixels that differ, on the `sides` of its four sides where fewest do."""
        around = [self.off[0], self.off[-1], self.off[:, 0], self.off[:, -1]]
        return float(np.concatenate(sorted(around, key=lambda side: float(side.mean()))[:sides]).mean())


def backgrounds(rgb: Float[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"], most: float) -> Iterator[Background]:
    """What the border may show, the simplest first. known: pixels that are asked. most: largest tolerance, per channel."""
    fits: tuple[Callable[..., Background | None], ...] = (_smooth, _sweep, _floor_and_wall)
    for fit in fits:
        found = fit(rgb, border_of(known), most)
        if found is not None:
            yield found


def border_of(known: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The known pixels along the sides."""
    depth = max(2, round(BORDER * min(known.shape)))
    border = known.copy()
    border[depth:-depth, depth:-depth] = False
    return border


def refitted(background: Background, rgb: Float[np.ndarray, "h w 3"], known: Bool[np.ndarray, "h w"]) -> Background:
    """The same, with a finer polynomial through all pixels that are known to be background."""
    rows, columns = _some(known)
    if not background.smooth or len(rows) < SAMPLES // 10:
        return background
    coefficients, _ = _polynomial(_places(rows, columns, known.shape), rgb[rows, columns], LATER_DEGREE)
    return replace(background, colors=_field(coefficients, LATER_DEGREE, known.shape))


def _smooth(rgb: np.ndarray, border: np.ndarray, most: float) -> Background:
    rows, columns = _some(border)
    places, colors = _places(rows, columns, border.shape), rgb[rows, columns]
    fits = [(*_polynomial(places, colors, degree), degree) for degree in DEGREES]
    # Outliers count as 0.1: a fit that explains most of the border beats one that is a little off everywhere.
    coefficients, residual, degree = min(fits, key=lambda fit: float(np.minimum(fit[1], 0.1).mean()) + FINEST * fit[2] / 10)
    return _measured(rgb, _field(coefficients, degree, border.shape), border, _tolerance(residual, most), smooth=True)


def _sweep(rgb: np.ndarray, border: np.ndarray, most: float) -> Background | None:
    """Colours that change from row to row, as a level floor and wall do; each row goes evenly from its left end to its right one."""
    height, width = border.shape
    depth = max(2, round(BORDER * min(border.shape)))
    left, right = np.median(rgb[:, :depth], axis=1), np.median(rgb[:, -depth:], axis=1)
    across = ((np.arange(width) + 0.5) / width)[:, None]
    field = left[:, None] * (1 - across) + right[:, None] * across
    ends = border.copy()
    ends[depth:-depth] = False
    tolerance = _tolerance(np.abs(rgb - field).max(axis=2)[ends], most)
    # Both ends change alike, or this is no sweep.
    middle = np.zeros(height)
    _, apart = _polynomial((middle, np.linspace(-1, 1, height)), left - right, 2)
    if (apart > 2 * tolerance).mean() > 2 * BORDER:
        return None
    return _measured(rgb, field, border, tolerance, smooth=False)


def _floor_and_wall(rgb: np.ndarray, border: np.ndarray, most: float) -> Background | None:
    """Two smooth colours that meet in a line from the left side to the right one."""
    rows, columns = _some(border)
    places, colors = _places(rows, columns, border.shape), rgb[rows, columns]
    steps = [(k + 0.5) / FOLD_STEPS for k in range(2, FOLD_STEPS - 3)]
    tried = [Fold(left, right) for left in steps for right in steps if abs(left - right) < 0.4]
    fold = min(tried, key=lambda each: _fold_cost(each, places, colors))
    for finer in (3, 9, 27):
        step = 1 / FOLD_STEPS / finer
        near = [Fold(fold.left + a * step, fold.right + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        fold = min(near, key=lambda each: _fold_cost(each, places, colors))
    if _fold_cost(fold, places, colors) == float("inf"):
        return None
    below = fold.depth(places) > 0
    field, residual = np.empty_like(rgb), np.empty(len(rows))
    every = np.indices(border.shape)
    floor = fold.depth(_places(every[0], every[1], border.shape)) > 0
    for part, region in ((below, floor), (~below, ~floor)):
        coefficients, residual[part] = _polynomial((places[0][part], places[1][part]), colors[part], 1)
        field[region] = _field(coefficients, 1, border.shape)[region]
    found = _measured(rgb, field, border, _tolerance(residual, most), smooth=False)
    ends, level = found.off[:, [0, -1]], floor[:, [0, -1]]
    if any(ends[part].sum() > MOST_STRAY_END * part.sum() for part in (level, ~level)):
        return None
    return replace(found, fold=fold)


def _fold_cost(fold: Fold, places: Places, colors: np.ndarray) -> float:
    below, total = fold.depth(places) > 0, 0.0
    for part in (below, ~below):
        if part.sum() < 16:
            return float("inf")
        total += float(np.minimum(np.abs(colors[part] - np.median(colors[part], axis=0)).max(axis=1), 0.1).sum())
    return total / len(colors)


def _measured(rgb: np.ndarray, field: np.ndarray, border: np.ndarray, tolerance: float, *, smooth: bool) -> Background:
    off = border & (np.abs(rgb - field).max(axis=2) > tolerance)
    return Background(colors=field, tolerance=tolerance, off=off, fold=None, smooth=smooth)


def _tolerance(residual: np.ndarray, most: float) -> float:
    """By the median, as a part of the border may show the object; blocks of compression are told by what few pixels are beyond."""
    if not len(residual):
        return FINEST
    middle, high = np.quantile(residual, [0.5, 0.95])
    # The median of the largest of three normal variables is 1.15 standard deviations.
    return float(np.clip(max(SPREAD * middle / 1.15, 1.3 * high if high < BLOCKS else 0.0), FINEST, most))


def _some(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(mask)
    chosen = slice(None, None, max(1, len(rows) // SAMPLES))
    return rows[chosen], columns[chosen]


def _places(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> Places:
    return (columns + 0.5) / shape[1] * 2 - 1, (rows + 0.5) / shape[0] * 2 - 1


def _powers(degree: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]


def _polynomial(places: Places, colors: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients, and each colour's distance, the largest of the channels. Least absolute distances, by reweighted least squares."""
    terms = np.stack([places[0] ** i * places[1] ** j for i, j in _powers(degree)], axis=-1)
    weights = np.ones(len(colors))
    for _ in range(12):
        squares = terms.T * weights
        # The small term keeps what the places do not determine at 0.
        coefficients = np.linalg.solve(squares @ terms + 1e-9 * weights.sum() * np.eye(terms.shape[1]), squares @ colors)
        residual = np.abs(terms @ coefficients - colors).max(axis=1)
        weights = 1 / np.maximum(residual, FINEST / 3)
    return coefficients, residual


def _field(coefficients: np.ndarray, degree: int, shape: tuple[int, ...]) -> np.ndarray:
    x, y = _places(np.arange(shape[0]), np.arange(shape[1]), shape)
    field = np.zeros((*shape, coefficients.shape[1]))
    for (i, j), coefficient in zip(_powers(degree), coefficients, strict=True):
        field += (y**j)[:, None, None] * (x**i)[None, :, None] * coefficient
    return field
