"""What orchestration costs: shares over pairs, the page's words, and a plain run that leaves the same files."""

from pathlib import Path

import pytest

from flows.benchmark.overhead import (
    Cost,
    Overhead,
    Pair,
    measure_overhead,
    plain_run,
    read_overheads,
    write_overhead,
)
from flows.benchmark.page import overhead_table
from schemas.runs import STAGES
from stages.runtime.errors import StageError
from stages.runtime.records import newest_records, read_record

MEASURED = Overhead(
    "a red armchair",
    "home",
    settings=("threads=1",),
    date="2026-01-01 00:00 UTC",
    pairs=(Pair(Cost(101.0, 80.0), Cost(100.0, 76.0)), Pair(Cost(99.0, 80.0), Cost(96.0, 76.0))),
)


def pairs(*walls: tuple[float, float]) -> Overhead:
    """A measurement with these seconds of runs and plain twins."""
    return Overhead(
        "a", "home", settings=(), date="", pairs=tuple(Pair(Cost(run, 80.0), Cost(plain, 79.0)) for run, plain in walls)
    )


def test_the_share_is_the_mean_over_pairs_with_its_standard_error() -> None:
    assert MEASURED.share("wall") == pytest.approx((1 / 101 + 3 / 99) / 2)
    assert MEASURED.share_error("wall") == pytest.approx((3 / 99 - 1 / 101) / 2)
    assert MEASURED.share("cpu") == pytest.approx(4 / 80)
    assert MEASURED.share_error("cpu") == 0


def test_the_page_says_whether_the_limit_is_kept_or_whether_nobody_can_tell() -> None:
    assert overhead_table(MEASURED).splitlines()[-1].replace(" ", "") == "|2|99.0|96.0|80.0|76.0|"
    assert (MEASURED.share_text("wall"), MEASURED.share_text("cpu")) == ("2.0% ± 1.0%", "5.0% ± 0.0%")
    assert "too few pairs" in MEASURED.verdict
    assert "too few pairs" in pairs((100.0, 99.0)).verdict
    assert pairs((100.0, 99.0)).share_text("wall") == "1.0%"
    noisy = pairs((100.0, 99.0), (100.0, 96.0), (100.0, 98.0))
    assert "do not tell whether it is within the 2% wanted" in noisy.verdict
    assert pairs((100.0, 99.0), (100.0, 99.1), (100.0, 99.0)).verdict == "within the 2% wanted"
    assert pairs((100.0, 97.0), (100.0, 97.1), (100.0, 97.0)).verdict == "**above** the 2% wanted"


def test_measurements_are_kept_side_by_side_and_replaced_by_their_like(tmp_path: Path) -> None:
    assert read_overheads(tmp_path) == []
    write_overhead(tmp_path, MEASURED)
    write_overhead(tmp_path, pairs((2.0, 1.0)))
    write_overhead(tmp_path, pairs((3.0, 1.0)))
    assert read_overheads(tmp_path) == [MEASURED, pairs((3.0, 1.0))]


def test_a_measured_process_that_fails_is_no_measurement() -> None:
    with pytest.raises(StageError, match="the measured run ended with 2"):
        measure_overhead("", "smoke", [], 1)


@pytest.mark.slow
def test_the_plain_twin_makes_the_asset_and_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output = Path(plain_run("a red armchair", "smoke", ["threads=1"], tmp_path / "store"))
    assert (output / "asset.glb").read_bytes()[:4] == b"glTF"
    assert not list((tmp_path / "store" / "journals").glob("**/*"))
    record = read_record(tmp_path / "store", newest_records(tmp_path / "store")[0].stem)
    assert set(record.stages) == set(STAGES)
