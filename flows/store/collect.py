"""Making room: what no run names goes, and, where the store's settings say so, old runs with what they alone name.

Runs are the roots. Running work is safe by three things: nothing goes that was written within the grace hours; each result, checkpoint
and run goes under the lock under which it is computed, and stays where somebody holds it; and before each the run records are looked at
again. A kill in the midst leaves what the next collection takes: records go before what they name, manifests before files.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from flows.store.usage import Key, Result, Run, all_results, all_runs, bytes_of, keys_of
from schemas.stores import StoreSettings, read_settings
from stages.runtime.errors import StageError
from stages.runtime.files import is_locked, modified_at, newest_first
from stages.runtime.records import read_record, record_path
from stages.runtime.signals import StoppedError
from stages.runtime.store import MANIFEST, LocalStore
from stages.runtime.tracking.files import unsent_journals

Kind = Literal["run", "result", "unfinished result", "checkpoints", "work folder", "lock", "input"]
CLOCK_S = 2.0
"""By which a folder's time may lag behind a write in it."""


@dataclass(frozen=True)
class Item:
    """Something that may go. lock: under which, as stage and key; None: nobody takes one for it."""

    kind: Kind
    path: Path
    bytes: int
    lock: Key | None = None


@dataclass(frozen=True)
class Plan:
    """What would go, runs first, and what would be left of results, inputs and journals."""

    items: tuple[Item, ...]
    left: int

    @property
    def bytes(self) -> int:
        """Of all that would go."""
        return sum(item.bytes for item in self.items)

    def counts(self) -> dict[str, tuple[int, int]]:
        """By kind: how many, and their bytes."""
        number, size = Counter[str](), Counter[str]()
        for item in self.items:
            number[item.kind] += 1
            size[item.kind] += item.bytes
        return {kind: (number[kind], size[kind]) for kind in number}


def plan_collection(store: Path, settings: StoreSettings) -> Plan:
    """What a collection would remove now; nothing is changed. Raises StageError where a run record cannot be read."""
    now = time.time()
    before = now - 3600 * settings.grace_hours
    runs, results = all_runs(store), list(all_results(store))
    leaving = [run for run in runs if _may_go(store, run, before)]
    chosen = _chosen_runs(store, settings, leaving=leaving, runs=runs, results=results, now=now)
    staying = [run for run in runs if run not in chosen]
    named = {key for run in staying for key in run.keys}
    items = [Item("run", record_path(store, run.record.run), run.journal, ("run", run.record.run)) for run in chosen]
    for result in results:
        if result.key not in named and (result.modified < before or _of(result, chosen)):
            kind: Kind = "result" if result.is_finished else "unfinished result"
            items.append(Item(kind, store / result.key[0] / result.key[1], result.bytes, result.key))
    items += _inputs(store, staying, before)
    items += _leavings(store, before, now - 86400 * settings.checkpoint_days)
    gone = {item.path for item in items}
    left = sum(each.bytes for each in results if store / each.key[0] / each.key[1] not in gone)
    return Plan(tuple(items), left + sum(run.journal for run in staying) + bytes_of(store / "inputs"))


def _may_go(store: Path, run: Run, before: float) -> bool:
    """Whether a run is old enough, and nobody is at work on it."""
    return run.modified < before and not is_locked(store / "locks" / f"run-{run.record.run}")


def _of(result: Result, chosen: list[Run]) -> bool:
    return any(result.key in run.keys for run in chosen)


def _chosen_runs(
    store: Path, settings: StoreSettings, *, leaving: list[Run], runs: list[Run], results: list[Result], now: float
) -> list[Run]:
    """The runs that go by age, and then, the one touched longest ago first, those that must for the bound."""
    days = settings.runs_days
    chosen = [run for run in leaving if days is not None and run.modified < now - 86400 * days]
    if settings.max_gib is None:
        return chosen
    size = {result.key: result.bytes for result in results}
    users = Counter(key for run in runs for key in run.keys)
    total = sum(size.get(key, 0) for key in users) + sum(run.journal for run in runs) + bytes_of(store / "inputs")
    for run in [*chosen, *(each for each in reversed(leaving) if each not in chosen)]:
        if run not in chosen:
            if total <= settings.max_gib * 2**30:
                break
            chosen.append(run)
        users.subtract(run.keys)
        total -= run.journal + sum(size.get(key, 0) for key in run.keys if users[key] == 0)
    return chosen


def _inputs(store: Path, staying: list[Run], before: float) -> Iterator[Item]:
    """Pictures and meshes that no run names."""
    named = {digest for run in staying for digest in run.record.inputs}
    for path in sorted((store / "inputs").glob("*")):
        modified = modified_at(path)
        if path.name not in named and modified is not None and modified < before:
            yield Item("input", path, bytes_of(path))


def _leavings(store: Path, before: float, stale: float) -> Iterator[Item]:
    """What interrupted work has left: old checkpoints, those of finished results, work folders of dead processes, locks."""
    for path in sorted((store / "checkpoints").glob("*")):
        stage, _, key = path.name.partition("-")
        newest = modified_at(next(iter(newest_first(path.glob("*"))), path))
        if newest is None:
            continue  # removed meanwhile
        if newest < stale or (LocalStore(store).has(stage, key) and newest < before):
            yield Item("checkpoints", path, bytes_of(path), (stage, key))
    for path in sorted((store / "work").glob("*")):
        pid = path.name.rpartition("-")[2]
        if not (pid.isdigit() and psutil.pid_exists(int(pid))):
            yield Item("work folder", path, bytes_of(path))
    for path in sorted((store / "locks").glob("*")):
        yield Item("lock", path, 0)


@dataclass
class Collected:
    """What went, in bytes and by number; kept: what somebody holds or names again."""

    bytes: int = 0
    items: int = 0
    kept: int = 0


def collect(store: Path, plan: Plan) -> Collected:
    """Remove what a plan names, as far as nobody has come to need it since. Raises StageError where the disk refuses."""
    done, roots = Collected(), Roots(store)
    for item in plan.items:
        if item.kind == "lock":
            is_locked(item.path)  # one that nobody holds goes
            continue
        gone = _removed(item) if item.lock is None else _removed_under_its_lock(store, item, roots)
        done.bytes += item.bytes if gone else 0
        done.items += gone
        done.kept += not gone
    return done


def keep_bound(store: Path) -> Collected | None:
    """Make room where the store's settings name a bound; None where they do not. Raises StageError or ConfigError."""
    settings = read_settings(store)
    return None if settings.max_gib is None else collect(store, plan_collection(store, settings))


def _removed_under_its_lock(store: Path, item: Item, roots: "Roots") -> bool:
    assert item.lock is not None
    try:
        with LocalStore(store).lock(*item.lock, lambda: True):
            if item.kind == "run":
                return _run_removed(store, item)
            if item.kind != "checkpoints" and roots.name(item.lock):
                return False
            return _removed(item)
    except StoppedError:
        return False  # somebody is at work on it


def _run_removed(store: Path, item: Item) -> bool:
    """A run's record, and then its journals, unless the tracker still lacks lines of them."""
    assert item.lock is not None
    item.path.unlink(missing_ok=True)
    journals = store / "journals" / item.lock[1]
    if not unsent_journals(journals):
        shutil.rmtree(journals, ignore_errors=True)
    return True


def _removed(item: Item) -> bool:
    """Without its manifest, which goes first, a result is none, wherever this is cut off."""
    if not item.path.is_dir():
        item.path.unlink(missing_ok=True)
        return True
    for path in (item.path / MANIFEST, *item.path.glob("step-*.json")):
        path.unlink(missing_ok=True)
    shutil.rmtree(item.path)
    return True


class Roots:
    """The results that runs name, up to date whenever it is asked."""

    def __init__(self, store: Path) -> None:
        self._store, self._folder = store, store / "runs"
        self._keys: dict[str, tuple[int, frozenset[Key]]] = {}
        self._seen = (0.0, 0.0)
        """The folder's time when its records were read, and when that was."""

    def name(self, key: Key) -> bool:
        """Whether a run names a result now."""
        self._read()
        return any(key in keys for _, keys in self._keys.values())

    def _read(self) -> None:
        """Read the records that have changed: each is replaced by a rename, which changes the folder's time."""
        stamp, now = self._folder.stat().st_mtime if self._folder.is_dir() else 0.0, time.time()
        if stamp == self._seen[0] and self._seen[1] - stamp > CLOCK_S:
            return
        found = {}
        for path in self._folder.glob("*.json"):
            try:
                time_ns = path.stat().st_mtime_ns
                known = self._keys.get(path.stem)
                fresh = known is not None and known[0] == time_ns and now - time_ns / 1e9 > CLOCK_S
                found[path.stem] = (
                    known if fresh and known else (time_ns, keys_of(read_record(self._store, path.stem, fresh=False)))
                )
            except (FileNotFoundError, StageError):
                if path.exists():
                    raise
        self._keys, self._seen = found, (stamp, now)
