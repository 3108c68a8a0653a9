"""The machine's figures: in the journal first, under MLflow's names, and no reason to end a run."""

import json
import time
from pathlib import Path

from mlflow import MlflowClient

from stages.runtime.tracking.journal import Journal, place_from_store, run_id_at_tracker
from stages.runtime.tracking.machine import machine_watched

NAMES = {"cpu_utilization_percentage", "system_memory_usage_megabytes", "process_memory_usage_megabytes"}


def samples(folder: Path) -> list[dict]:
    lines = (folder / "run.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "metrics" in entry]


def watched(folder: Path, at_least: int) -> Journal:
    """A journal that was watched until it has so many samples more."""
    journal = Journal(folder, "run", "a chair", {})
    before = len(samples(folder))
    until = time.monotonic() + 60
    with machine_watched(journal, None, interval_s=0.01):
        while len(samples(folder)) < before + at_least:
            assert time.monotonic() < until
            time.sleep(0.02)
    return journal


def test_samples_are_journalled_and_go_on_behind_a_resume(store: Path, tracker: str) -> None:
    folder = store / "journals/run1"
    watched(folder, 2)
    journal = watched(folder, 2)
    found = samples(folder)
    assert [entry["step"] for entry in found] == list(range(len(found)))
    assert {f"system/{name}" for name in NAMES} <= set(found[0]["metrics"])
    assert 0 < found[0]["metrics"]["system/system_memory_usage_percentage"] <= 100
    assert found[0]["metrics"]["system/process_memory_usage_megabytes"] > 10
    assert journal.send(place_from_store(store, tracker))
    client, run = MlflowClient(tracking_uri=tracker), str(run_id_at_tracker(folder, "run"))
    sent = client.get_metric_history(run, "system/cpu_utilization_percentage")
    assert [point.step for point in sent] == list(range(len(found)))


def test_a_journal_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run1", "run", "a chair", {})
    (tmp_path / "run1/run.jsonl").unlink()
    (tmp_path / "run1/run.jsonl").mkdir()
    ended = False
    with machine_watched(journal, None, interval_s=0.001):
        time.sleep(0.05)
        ended = True
    assert ended
    assert list((tmp_path / "run1/run.jsonl").iterdir()) == []
