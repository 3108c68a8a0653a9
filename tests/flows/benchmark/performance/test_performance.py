"""`dreampolish bench`: medians, growth, and the encoding that ours is measured beside, against closed forms."""

import pytest
import torch

from flows.benchmark.performance.encoding import PRIMES, TorchHashEncoding
from flows.benchmark.performance.operations import Growth
from flows.benchmark.performance.page import page_text
from flows.benchmark.performance.run import StageTime, clocked
from flows.benchmark.performance.timing import side_by_side, slope, spread_of


def test_the_spread_is_median_and_quartiles() -> None:
    found = spread_of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)


def test_ways_are_called_in_turn() -> None:
    called: list[str] = []
    found = side_by_side("both", {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=3)
    assert called == ["a", "b"] * 4
    assert list(found.milliseconds) == ["a", "b"]
    assert list(found.times) == ["b"]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_slope_is_the_exponent(exponent: float) -> None:
    sizes = [1.0, 2.0, 8.0]
    assert slope(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


def test_the_encoding_interpolates_what_its_corners_hold() -> None:
    encoding = TorchHashEncoding(2, 1, 2**10, [4, 8])
    point = torch.tensor([[0.3, 0.6, 0.1]])
    for level, cells in enumerate((4, 8)):
        expected = torch.zeros(())
        place = point[0] * cells
        low = place.floor()
        for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
            lattice = low.long() + corner
            entry = (int(lattice[0]) * PRIMES[0]) ^ (int(lattice[1]) * PRIMES[1]) ^ (int(lattice[2]) * PRIMES[2])
            share = torch.where(corner.bool(), place - low, 1 - (place - low)).prod()
            expected = expected + share * encoding.table[level, entry % 2**10, 0]
        assert float(encoding(point)[0, level].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_page_shows_ratios_growth_and_shares() -> None:
    comparison = side_by_side("an addition", {"ours": lambda: 1 + 1, "theirs": lambda: sum(range(9))}, rounds=2)
    growth = Growth("a loop", (1.0, 10.0), (2.0, 20.0), 1.0)
    page = page_text([comparison], [growth], [StageTime("texture", 8.0, 6.0, 40)], "cpu", "1 thread.")
    assert "theirs" in page
    assert "1.00" in page
    assert "75%" in page


def test_only_calls_of_the_networks_count() -> None:
    with clocked() as clock:
        torch.nn.Linear(2, 2)(torch.zeros(1, 2))
    assert (clock.passes, clock.seconds) == (0, 0.0)
