"""Timing ways of doing one thing side by side: in turn, round by round, so that a busy neighbour slows all of them."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

Way = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles on both sides of it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """What was compared. milliseconds: of each way, ours first. times: of each other way, its time in ours, by round."""

    what: str
    milliseconds: Mapping[str, Spread]
    times: Mapping[str, Spread]


def spread_of(values: Sequence[float]) -> Spread:
    """The median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def side_by_side(what: str, ways: Mapping[str, Way], rounds: int) -> Comparison:
    """Call every way once to warm up, then in turn for `rounds` rounds. The first way is ours."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(milliseconds(way))
    ours = next(iter(taken.values()))
    others = list(taken.items())[1:]
    return Comparison(
        what=what,
        milliseconds={name: spread_of(values) for name, values in taken.items()},
        times={name: spread_of([theirs / own for theirs, own in zip(values, ours, strict=True)]) for name, values in others},
    )


def milliseconds(way: Way) -> float:
    """What one call takes; on a GPU until its kernels have ended."""
    _wait_for_gpu()
    begun = time.perf_counter()
    way()
    _wait_for_gpu()
    return 1000 * (time.perf_counter() - begun)


def _wait_for_gpu() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The exponent of growth: the slope of the straight line through log time over log size; 1 is proportional."""
    x, y = ([math.log(value) for value in values] for values in (sizes, times))
    return statistics.linear_regression(x, y).slope
