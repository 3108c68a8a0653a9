"""The journal: nothing lost, nothing doubled, whatever happens between it and the tracker."""

import io
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from stages.runtime.tracking import journal as tracking
from stages.runtime.tracking.files import flattened, sending
from stages.runtime.tracking.journal import Journal, place_from_store, replay, replay_all, run_id_at_tracker


def begun(store: Path) -> Journal:
    Journal(store / "journals/run1", "run", "a chair", {"prompt": "a chair"}).params({"nerf": {"steps": 4}})
    return Journal(store / "journals/run1", "nerf", "nerf", {"stage": "nerf"})


def logged(store: Path, uri: str) -> tuple[MlflowClient, str]:
    run = run_id_at_tracker(store / "journals/run1", "nerf")
    assert run is not None
    return MlflowClient(tracking_uri=uri), run


def forget_sent(store: Path) -> None:
    """As if the process had died between sending and noting so."""
    for path in (store / "journals").rglob("*.sent.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "sent": 0}))


def test_a_stage_becomes_a_child_with_its_curve_and_picture(store: Path, tracker: str) -> None:
    journal, place = begun(store), place_from_store(store, tracker)
    for step in range(1, 6):
        journal.metrics(step, {"nerf/psnr": 10.0 + step})
    journal.image("nerf/view", 5, np.zeros((8, 8, 3), np.uint8))
    journal.end("FINISHED")
    assert journal.send(place)
    client, run = logged(store, tracker)
    child, parent = client.get_run(run), client.get_run(run_id_at_tracker(store / "journals/run1", "run"))
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.status == "FINISHED"
    assert parent.data.params == {"nerf.steps": "4"}
    assert [point.value for point in client.get_metric_history(run, "nerf/psnr")] == [11.0, 12.0, 13.0, 14.0, 15.0]
    pictures = [path.name for path in (store / "mlartifacts" / run / "artifacts" / "images").iterdir()]
    assert [name.rpartition(".")[2] for name in sorted(pictures)] == ["webp", "png"]
    assert not list((store / "journals").rglob("*.png"))


def test_what_another_process_is_sending_is_passed_over_without_a_word(
    store: Path, tracker: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal, place = begun(store), place_from_store(store, tracker)
    journal.metrics(1, {"nerf/psnr": 1.0})
    with sending(store / "journals/run1", 0.0):
        assert replay_all(store / "journals", place) == 0
    assert caplog.text == ""
    assert replay_all(store / "journals", place) == 2


def test_sending_twice_stores_once(store: Path, tracker: str) -> None:
    journal, place = begun(store), place_from_store(store, tracker)
    journal.metrics(1, {"nerf/psnr": 1.0, "nerf/ssim": 0.5})
    journal.metrics(2, {"nerf/psnr": 2.0})
    assert journal.send(place)
    forget_sent(store)
    replay(store / "journals/run1", "nerf", place, 0.0)
    journal.metrics(3, {"nerf/psnr": 3.0})
    assert journal.send(place)
    client, run = logged(store, tracker)
    assert [point.step for point in client.get_metric_history(run, "nerf/psnr")] == [1, 2, 3]
    assert len(client.search_runs(["1"])) == 2


def test_a_repeated_step_after_a_resume_is_not_doubled(store: Path) -> None:
    begun(store).metrics(4, {"psnr": 1.0})
    again = begun(store)
    again.metrics(3, {"psnr": 1.0})
    again.metrics(4, {"psnr": 1.0, "ssim": 2.0})
    again.metrics(5, {"psnr": 1.0})
    lines = [json.loads(line) for line in (store / "journals/run1/nerf.jsonl").read_text().splitlines()]
    points = [(line["step"], sorted(line["metrics"])) for line in lines if "metrics" in line]
    assert points == [(4, ["psnr"]), (4, ["ssim"]), (5, ["psnr"])]


def test_a_torn_last_line_is_cut_off(store: Path) -> None:
    begun(store).metrics(1, {"psnr": 1.0})
    path = store / "journals/run1/nerf.jsonl"
    with path.open("a") as file:
        file.write('{"t":1,"step":2,"metr')
    begun(store).metrics(2, {"psnr": 2.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines if "metrics" in line] == [1, 2]


def test_an_absent_tracker_delays_but_loses_nothing(store: Path, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    journal = begun(store)
    journal.metrics(1, {"nerf/psnr": 1.0})
    journal.image("view", 1, np.zeros((8, 8, 3), np.uint8))
    assert not journal.send(place_from_store(store, "http://127.0.0.1:9"))
    assert replay_all(store / "journals", place_from_store(store, tracker)) == 2
    assert replay_all(store / "journals", place_from_store(store, tracker)) == 0
    client, run = logged(store, tracker)
    assert client.get_run(run).data.metrics == {"nerf/psnr": 1.0}
    assert len(list((store / "mlartifacts" / run / "artifacts" / "images").iterdir())) == 2


@pytest.mark.parametrize("name", ["a?b#c", "100%41", "\u00e4 @:x&y=z"])
def test_a_store_of_any_name_keeps_its_figures_inside(tmp_path: Path, name: str) -> None:
    store = tmp_path / name / "store"
    journal, place = begun(store), place_from_store(store, None)
    journal.metrics(1, {"nerf/psnr": 1.0})
    assert journal.send(place)
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing lies beside it"
    with sqlite3.connect(store / "mlflow.db") as database:
        assert database.execute("SELECT value FROM metrics").fetchall() == [(1.0,)]


def with_picture(store: Path, step: int) -> Journal:
    journal = begun(store)
    journal.image("view", step, np.zeros((8, 8, 3), np.uint8))
    return journal


@pytest.mark.parametrize("by_earlier_version", [False, True])
def test_a_store_that_moved_keeps_its_pictures_together(
    tmp_path: Path, tracker: str, store: Path, by_earlier_version: bool
) -> None:
    assert with_picture(store, 1).send(place_from_store(store, tracker))
    run = logged(store, tracker)[1]
    with closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        assert database.execute("SELECT artifact_uri FROM runs WHERE run_uuid = ?", [run]).fetchall() == [
            (f"mlflow-artifacts:/{run}/artifacts",)
        ]
        if by_earlier_version:
            here = (store / "mlartifacts").as_uri()
            database.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'dreampolish'", [here])
            database.execute("UPDATE runs SET artifact_uri = ? || '/' || run_uuid || '/artifacts'", [here])
    moved = store.rename(tmp_path / "elsewhere")
    assert with_picture(moved, 2).send(place_from_store(moved, None))
    assert not store.exists(), "nothing is written to the old place"
    steps = {path.name.split("+")[2] for path in (moved / "mlartifacts" / run / "artifacts" / "images").iterdir()}
    assert steps == {"1", "2"}
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        places = database.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs").fetchall()
    assert not any(str(tmp_path) in place for (place,) in places if "mlruns" not in place)


def test_a_database_that_is_locked_for_a_moment_is_asked_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, place = begun(store), place_from_store(store, None)
    refused = iter([MlflowException("database is locked")] * 2)

    def busy(*arguments: Any) -> str:
        for error in refused:
            raise error
        return replay(*arguments)

    monkeypatch.setattr(tracking, "replay", busy)
    monkeypatch.setattr(tracking, "DATABASE_PAUSE_S", 0.01)
    assert journal.send(place)
    assert next(refused, None) is None
    assert logged(store, place.uri)[0].get_run(logged(store, place.uri)[1]).data.tags["stage"] == "nerf"


def test_a_database_that_stays_locked_is_not_waited_for(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def busy(*arguments: Any) -> str:
        asked.append(arguments)
        raise MlflowException("database is locked")

    monkeypatch.setattr(tracking, "replay", busy)
    monkeypatch.setattr(tracking, "DATABASE_PAUSE_S", 0.01)
    assert not begun(store).send(place_from_store(store, None))
    assert len(asked) == tracking.DATABASE_ATTEMPTS
    monkeypatch.setattr(tracking, "replay", lambda *arguments: asked.append(arguments) or 1 / 0)
    assert not begun(store).send(place_from_store(store, None))
    assert len(asked) == tracking.DATABASE_ATTEMPTS + 1


def test_what_mlflow_cannot_store_leaves_no_trace_on_the_screen(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = place_from_store(store, None)
    begun(store).send(place)
    with sqlite3.connect(store / "mlflow.db") as database:
        database.execute("DROP TABLE metrics")
    journal = Journal(store / "journals/run1", "nerf", "nerf", {})
    journal.metrics(1, {"nerf/psnr": 1.0})
    capfd.readouterr()
    with pytest.raises(MlflowException):
        replay(store / "journals/run1", "nerf", place, 0.0)
    assert capfd.readouterr() == ("", "")


def test_a_setting_that_changed_is_a_tag_and_blocks_nothing(store: Path, tracker: str) -> None:
    place = place_from_store(store, tracker)
    begun(store)
    assert replay_all(store / "journals", place) == 2
    parent = Journal(store / "journals/run1", "run", "a chair", {})
    parent.params({"nerf": {"steps": 7, "views": 2}})
    parent.params({"nerf": {"steps": 7, "views": 2}})
    # As journals of before did: every setting again, the changed one among them.
    parent._write({"params": {"nerf.steps": "9", "nerf.views": "2"}})
    parent.metrics(1, {"final/psnr": 3.0})
    assert parent.send(place)
    run = MlflowClient(tracking_uri=tracker).get_run(run_id_at_tracker(store / "journals/run1", "run"))
    assert run.data.params == {"nerf.steps": "4", "nerf.views": "2"}
    assert run.data.tags["changed.nerf.steps"] == "9"
    assert run.data.metrics == {"final/psnr": 3.0}
    assert (store / "journals/run1/run.jsonl").read_text().count('"nerf.views"') == 2


def test_one_journal_that_cannot_be_sent_holds_up_no_other(store: Path, tracker: str) -> None:
    place = place_from_store(store, tracker)
    bad = Journal(store / "journals/run0", "run", "bad", {})
    bad._write({"metrics": {"no such: name?": 1.0}, "step": 1})
    begun(store).metrics(1, {"nerf/psnr": 1.0})
    assert replay_all(store / "journals", place) == 2
    client, run = logged(store, tracker)
    assert client.get_run(run).data.metrics == {"nerf/psnr": 1.0}


def test_damaged_lines_are_passed_over(store: Path, tracker: str) -> None:
    journal = begun(store)
    journal.metrics(1, {"nerf/psnr": 1.0})
    path = store / "journals/run1/nerf.jsonl"
    with path.open("a") as file:
        file.write("\x00\x00\n[1]\n")
    again = begun(store)
    again.metrics(2, {"nerf/psnr": 2.0})
    assert again.send(place_from_store(store, tracker))
    client, run = logged(store, tracker)
    assert [point.value for point in client.get_metric_history(run, "nerf/psnr")] == [1.0, 2.0]


def test_a_full_disk_leaves_no_half_line(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begun(store)

    class Full(io.FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            return super().write(data[:5])

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode, buffering: Full(path, mode.replace("b", "")))
        with pytest.raises(OSError, match="No space left"):
            journal.metrics(1, {"psnr": 1.0})
    journal.metrics(1, {"psnr": 2.0})
    lines = [json.loads(line) for line in (store / "journals/run1/nerf.jsonl").read_text().splitlines()]
    assert lines[-1]["metrics"] == {"psnr": 2.0}


def test_two_processes_that_send_the_same_journals_make_one_run(store: Path, tracker: str) -> None:
    journal = begun(store)
    for step in range(1, 40):
        journal.metrics(step, {"nerf/psnr": float(step)})
    place, pids = place_from_store(store, tracker), []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                replay_all(store / "journals", place)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    replay_all(store / "journals", place)
    client, run = logged(store, tracker)
    assert len(client.search_runs(["1"])) == 2
    assert [point.step for point in client.get_metric_history(run, "nerf/psnr")] == list(range(1, 40))


def test_nan_is_refused(store: Path) -> None:
    with pytest.raises(ValueError, match="psnr is nan at step 1"):
        begun(store).metrics(1, {"psnr": float("nan")})


def test_flattening() -> None:
    assert flattened({"a": {"b": 1, "c": {"d": None}}, "e": [1]}) == {"a.b": 1, "a.c.d": None, "e": [1]}
