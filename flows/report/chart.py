"""Small line charts as SVG that take their colours from the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.report.curves import Curve

WIDTH, HEIGHT = 240, 72
LOG_RATIO = 100.0
"""From this ratio of the largest to the smallest value on, all positive, a chart is logarithmic."""


@dataclass(frozen=True)
class Chart:
    """A chart and what is written around it. `last`: each series' last value, in order."""

    name: str
    svg: Markup
    low: str
    high: str
    last: tuple[str, ...]
    steps: int
    is_log: bool


def chart(name: str, series: Sequence[Curve]) -> Chart:
    """Curves (one or more, each with a point at least) over common axes; series k is drawn with the class `line-k`."""
    values = [value for curve in series for _, value in curve]
    steps = [step for curve in series for step, _ in curve]
    low, high = min(values), max(values)
    is_log = low > 0 and high / low >= LOG_RATIO
    x = _scale(min(steps), max(steps), 0.0, WIDTH)
    y = _scale(math.log(low), math.log(high), HEIGHT, 0.0) if is_log else _scale(low, high, HEIGHT, 0.0)
    paths = []
    for number, curve in enumerate(series):
        points = " ".join(f"{x(step):.1f},{y(math.log(value) if is_log else value):.1f}" for step, value in curve)
        paths.append(f'<polyline class="line-{number}" points="{points}"/>')
    # Numbers and fixed words only: nothing here needs escaping.
    svg = Markup(
        f'<svg viewBox="0 -2 {WIDTH} {HEIGHT + 4}" preserveAspectRatio="none" aria-hidden="true">{"".join(paths)}</svg>'
    )
    last = tuple(figure(curve[-1][1]) for curve in series)
    return Chart(
        name=name.replace("_", " "), svg=svg, low=figure(low), high=figure(high), last=last, steps=max(steps), is_log=is_log
    )


def figure(value: float) -> str:
    """A number as people read it: 12,345, 36.2, 0.00123."""
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(n_bytes: int) -> str:
    """Bytes in MiB, or in KiB below one."""
    return f"{n_bytes / 2**20:.1f} MiB" if n_bytes >= 2**20 else f"{n_bytes / 2**10:.0f} KiB"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A linear map of [low, high] to [start, end]; a flat range goes to the middle."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)
