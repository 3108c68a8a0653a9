"""What orchestration costs: shares over pairs, the page's words, and a plain run that leaves the same files."""

from pathlib import Path

import pytest

from flows.benchmark_overhead import (
    Cost,
    Overhead,
    Pair,
    measure_overhead,
    overhead_section,
    plain_run,
    read_overhead,
    write_overhead,
)
from schemas.runs import STAGES
from stages.errors import StageError
from stages.run_record import newest_records, read_record

MEASURED = Overhead(
    "a red armchair",
    "home",
    ("threads=1",),
    "2026-01-01 00:00 UTC",
    (Pair(Cost(101.0, 80.0), Cost(100.0, 76.0)), Pair(Cost(99.0, 80.0), Cost(96.0, 76.0))),
)


def test_the_share_is_that_of_all_pairs_together() -> None:
    assert MEASURED.share("wall") == pytest.approx(4 / 200)
    assert MEASURED.share("cpu") == pytest.approx(8 / 160)


def test_the_page_says_whether_the_limit_is_kept() -> None:
    text = overhead_section(MEASURED)
    assert "| 2 | 99.0 | 96.0 | 80.0 | 76.0 |" in text
    assert "2.0% of the wall time (5.0% of the processor time), **above** the 2% wanted" in text
    cheap = Overhead("a", "home", (), "", (Pair(Cost(100.0, 80.0), Cost(99.0, 79.0)),))
    assert "1.0% of the wall time" in overhead_section(cheap)
    assert "within the 2% wanted" in overhead_section(cheap)


def test_a_measurement_is_kept_and_found_again(tmp_path: Path) -> None:
    assert read_overhead(tmp_path) is None
    write_overhead(tmp_path, MEASURED)
    assert read_overhead(tmp_path) == MEASURED


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
