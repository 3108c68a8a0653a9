"""Collections: runs are the roots, and running work loses nothing."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.store.collect import Roots, collect, plan_collection
from flows.store.usage import all_runs, usage_of
from schemas.config.run import Config
from schemas.runs import RunRecord, StageRecord
from schemas.stores import StoreSettings, read_settings
from stages.runtime.errors import StageError
from stages.runtime.records import read_record, record_path, write_record
from stages.runtime.store import LocalStore
from stages.runtime.tracking.files import write_cursor
from tests.support.stored_runs import PAYLOAD_BYTES, grow_old, key_of, published, stored_run

DAY_S = 86400.0
AT_ONCE = StoreSettings(grace_hours=0)


@contextmanager
def held_elsewhere(local: LocalStore, *keys: tuple[str, str]) -> Iterator[None]:
    """Another thread holds the locks of computations."""
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as locks:
            for key in keys:
                locks.enter_context(local.lock(*key, lambda: False))
            held.set()
            over.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    try:
        yield
    finally:
        over.set()
        holder.join()


def folders(store: Path, place: str = "nerf") -> set[str]:
    return {path.name for path in (store / place).glob("*")}


def test_what_no_run_names_goes_and_what_runs_name_stays(store: Path) -> None:
    kept, orphan = stored_run(store, "aaaaaaa1", picture=b"mine"), published(store, "orphan")
    (store / "inputs" / ("0" * 64)).write_bytes(b"nobody's")
    (store / "nerf/half").mkdir()
    (store / "nerf/half/field.bin").write_bytes(b"x")
    grow_old(store, 2 * DAY_S)
    plan = plan_collection(store, StoreSettings())
    assert plan.counts()["result"] == (1, plan.counts()["result"][1])
    assert plan.counts()["unfinished result"] == (1, 1)
    assert plan.counts()["input"] == (1, 8)
    assert folders(store) == {kept.stages["nerf"].fingerprint, orphan.fingerprint, "half"}, "planning changes nothing"
    before = usage_of(store)
    assert before.unnamed == plan.counts()["result"][1] + 1
    done = collect(store, plan)
    assert done.kept == 0
    assert folders(store) == {kept.stages["nerf"].fingerprint}
    assert usage_of(store).unnamed == 0
    assert {path.name for path in (store / "inputs").iterdir()} == {kept.image}
    assert usage_of(store).total <= before.total - done.bytes


def test_young_things_stay(store: Path) -> None:
    published(store, "just now")
    assert plan_collection(store, StoreSettings()).items == ()
    assert {item.kind for item in plan_collection(store, AT_ONCE).items} == {"result"}


def test_old_runs_go_by_age_and_shared_results_stay_with_the_others(store: Path) -> None:
    old = stored_run(store, "aaaaaaa1", shared="both", age_s=40 * DAY_S)
    young = stored_run(store, "bbbbbbb2", shared="both", age_s=2 * DAY_S)
    plan = plan_collection(store, StoreSettings(runs_days=30))
    assert [item.path for item in plan.items] == [record_path(store, old.run), store / "scores" / old.stages["nerf"].scores]
    collect(store, plan)
    assert folders(store) == {young.stages["nerf"].fingerprint}
    assert not record_path(store, old.run).exists()
    assert (store / "journals" / old.run).is_dir(), "the tracker lacks its lines"
    assert read_record(store, young.run).stages == young.stages


def test_journals_go_with_their_run_once_the_tracker_has_them(store: Path) -> None:
    old = stored_run(store, "aaaaaaa1", age_s=40 * DAY_S)
    folder = store / "journals" / old.run
    write_cursor(folder, "run", {"run": "1", "sent": (folder / "run.jsonl").stat().st_size})
    collect(store, plan_collection(store, StoreSettings(runs_days=30)))
    assert not folder.exists()


def test_a_bound_takes_the_oldest_runs_until_it_is_kept(store: Path) -> None:
    for number in range(6):
        stored_run(store, f"aaaaaaa{number}")
    for number in range(6):
        os.utime(record_path(store, f"aaaaaaa{number}"), (1e9 + number, 1e9 + number))
    whole = sum(size for name, size in usage_of(store).named.items())
    bound = (whole * 0.5) / 2**30
    plan = plan_collection(store, StoreSettings(max_gib=bound, grace_hours=0))
    assert plan.left <= bound * 2**30
    collect(store, plan)
    assert sorted(path.stem for path in (store / "runs").iterdir()) == ["aaaaaaa3", "aaaaaaa4", "aaaaaaa5"]
    assert plan_collection(store, StoreSettings(max_gib=bound, grace_hours=0)).items == ()


def test_what_somebody_holds_stays(store: Path) -> None:
    orphan = published(store, "being read")
    run = stored_run(store, "aaaaaaa1", age_s=40 * DAY_S)
    local = LocalStore(store)
    with held_elsewhere(local, ("nerf", orphan.fingerprint), ("run", run.run)):
        plan = plan_collection(store, StoreSettings(runs_days=30, grace_hours=0))
        assert collect(store, plan).kept == 1
    assert local.has("nerf", orphan.fingerprint)
    assert record_path(store, run.run).exists()
    assert collect(store, plan).kept == 0
    assert not local.has("nerf", orphan.fingerprint)


def test_a_result_that_a_run_took_up_after_the_plan_stays(store: Path) -> None:
    orphan = published(store, "found again")
    run = stored_run(store, "aaaaaaa1")
    plan = plan_collection(store, AT_ONCE)
    assert [item.path.name for item in plan.items] == [orphan.fingerprint]
    entry = run.stages["nerf"].model_copy(update={"fingerprint": orphan.fingerprint})
    write_record(store, run.model_copy(update={"stages": {"nerf": entry}}))
    assert collect(store, plan).kept == 1
    assert LocalStore(store).has("nerf", orphan.fingerprint)


def test_roots_follow_the_records_at_every_moment(store: Path) -> None:
    roots, records = Roots(store), [stored_run(store, f"aaaaaaa{number}") for number in range(3)]
    for record in records:
        assert roots.name(("nerf", record.stages["nerf"].fingerprint))
        record_path(store, record.run).unlink()
        assert not roots.name(("nerf", record.stages["nerf"].fingerprint))


def test_checkpoints_go_when_they_are_old_or_their_result_is_there(store: Path) -> None:
    done = published(store, "done")
    for name in (f"nerf-{done.fingerprint}", "nerf-" + "1" * 64, "nerf-" + "2" * 64):
        (store / "checkpoints" / name).mkdir(parents=True)
        (store / "checkpoints" / name / "step-00000001.json").write_text("{}")
    stored_run(store, "aaaaaaa1")
    grow_old(store, 2 * DAY_S)
    os.utime(store / "checkpoints" / ("nerf-" + "1" * 64) / "step-00000001.json", (1e9, 1e9))
    gone = {item.path.name for item in plan_collection(store, StoreSettings()).items if item.kind == "checkpoints"}
    assert gone == {f"nerf-{done.fingerprint}", "nerf-" + "1" * 64}


def test_work_folders_of_the_dead_and_free_locks_go(store: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    for pid in (dead.pid, os.getpid()):
        (store / f"work/nerf-1-{pid}").mkdir(parents=True)
    (store / "locks").mkdir()
    (store / "locks/nerf-1").touch()
    with LocalStore(store).lock("nerf", "2", lambda: False):
        collect(store, plan_collection(store, AT_ONCE))
        assert [path.name for path in (store / "locks").iterdir()] == ["nerf-2"]
    assert [path.name for path in (store / "work").iterdir()] == [f"nerf-1-{os.getpid()}"]


def test_a_record_that_cannot_be_read_stops_a_collection(store: Path) -> None:
    stored_run(store, "aaaaaaa1")
    record_path(store, "aaaaaaa1").write_text("{")
    published(store, "whose?")
    with pytest.raises(StageError, match="what it names cannot be told"):
        plan_collection(store, AT_ONCE)


def test_a_record_that_leaves_while_it_is_read_is_no_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_run(store, "aaaaaaa1")

    def removed_meanwhile(store: Path, run: str, *, fresh: bool) -> RunRecord:
        record_path(store, run).unlink()
        return read_record(store, run, fresh=fresh)

    monkeypatch.setattr("flows.store.usage.read_record", removed_meanwhile)
    assert all_runs(store) == []


def test_collections_beside_runs_lose_nothing(store: Path) -> None:
    """Runs take up results under their locks, as stages do, while collections without grace run."""
    local, over, collections = LocalStore(store), threading.Event(), list[int]()

    def collecting() -> None:
        while not over.is_set():
            collections.append(collect(store, plan_collection(store, AT_ONCE)).items)

    collector = threading.Thread(target=collecting)
    collector.start()
    for number in range(60):
        words, run = str(number % 7), f"aaaaaa{number:02}"
        with local.lock("nerf", key_of(f"nerf {words}"), lambda: False):
            nerf = published(store, words)
            entry = StageRecord(name="nerf", state="computed", seconds=1, fingerprint=nerf.fingerprint, metrics={})
            config = Config()
            write_record(store, RunRecord(run=run, prompt="a", config=config, created="2026-01-01", stages={"nerf": entry}))
        local.open("nerf", nerf.fingerprint, type(nerf))
        if number % 5 == 4:
            record_path(store, run).unlink()
    over.set()
    collector.join()
    assert sum(collections) > 0


def test_settings_are_read_and_mistakes_told(store: Path) -> None:
    store.mkdir()
    assert read_settings(store) == StoreSettings()
    (store / "settings.yaml").write_text("max_gib: 2\nruns_days: 7\n")
    assert (read_settings(store).max_gib, read_settings(store).runs_days) == (2, 7)
    for text, words in (("max_gb: 2", "max_gb"), ("max_gib: -1", "greater than 0"), ("a: [", "cannot be read")):
        (store / "settings.yaml").write_text(text)
        ended = CliRunner().invoke(app, ["store", "gc"])
        assert (ended.exit_code, words in ended.output, "\n" in ended.output.strip()) == (2, True, False)


def test_the_commands(store: Path) -> None:
    run = stored_run(store, "aaaaaaa1")
    orphan = published(store, "orphan")
    call = CliRunner().invoke
    assert "a chair aaaaaaa1" in call(app, ["store", "ls"]).stdout
    assert run.stages["nerf"].fingerprint[:12] in call(app, ["store", "ls", "aaaa"]).stdout
    assert "2 results" in call(app, ["store", "du"]).stdout
    dry = call(app, ["store", "gc", "--grace-hours", "0"])
    assert dry.exit_code == 0
    assert "1 result: " in dry.stdout
    assert "store gc --yes removes it" in dry.stdout
    assert LocalStore(store).has("nerf", orphan.fingerprint)
    freed = json.loads(call(app, ["store", "gc", "--grace-hours", "0", "--yes", "--json"]).stdout.splitlines()[-1])
    assert (freed["removed"], freed["items"], freed["bytes"] > PAYLOAD_BYTES) == (True, 1, True)
    assert not LocalStore(store).has("nerf", orphan.fingerprint)
