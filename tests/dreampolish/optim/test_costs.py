"""What a computation cost until its checkpoints, by a clock that the test moves."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from dreampolish.optim.costs import CostedCheckpoints


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dreampolish.optim.costs.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def opened(folder: Path) -> CostedCheckpoints:
    return CostedCheckpoints(folder, interval=1, keep=2)


def test_seconds_go_on_from_the_checkpoint(tmp_path: Path, clock: Clock) -> None:
    first = opened(tmp_path / "fit")
    assert first.latest() is None
    clock.now += 7
    first.begin()
    clock.now += 10
    first.save(3, {"value": 1})
    clock.now += 5
    second = opened(tmp_path / "fit")
    clock.now += 100
    second.begin()
    assert second.latest() == (3, {"value": 1})
    clock.now += 2
    assert second.cost().seconds == 12
    second.save(4, {"value": 2})
    third = opened(tmp_path / "fit")
    assert third.latest() == (4, {"value": 2})
    assert third.cost().seconds == 12


def test_a_damaged_checkpoint_leaves_the_older_one_with_its_cost(tmp_path: Path, clock: Clock) -> None:
    first = opened(tmp_path)
    for step in (1, 2, 3):
        clock.now += 10
        first.save(step, {"value": step})
    (tmp_path / "step-00000003.safetensors").write_bytes(b"")
    second = opened(tmp_path)
    assert second.latest() == (2, {"value": 2})
    assert second.cost().seconds == 20


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"1": 7}', '{"1": {"seconds": -1}}', '{"1": {"seconds": 1e999}}', '{"one": {"seconds": 1, "peak_memory": 1}}'],
)
def test_costs_that_cannot_be_read_lose_no_checkpoint(tmp_path: Path, clock: Clock, content: str) -> None:
    first = opened(tmp_path)
    clock.now += 10
    first.save(1, {"value": 1})
    (tmp_path / "costs.json").write_text(content)
    second = opened(tmp_path)
    assert second.latest() == (1, {"value": 1})
    assert second.cost().seconds == 0
    second.save(2, {"value": 2})
    assert opened(tmp_path).latest() == (2, {"value": 2})


def test_peak_memory_is_the_largest_of_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreampolish.optim.costs.peak_memory", lambda: 800)
    opened(tmp_path).save(1, {})
    monkeypatch.setattr("dreampolish.optim.costs.peak_memory", lambda: 300)
    second = opened(tmp_path)
    second.latest()
    assert second.cost().peak_memory == 800
    second.clear()
    assert not tmp_path.exists()
