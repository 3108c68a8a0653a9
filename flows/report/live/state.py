"""What there is to see of a run now: from its record, its journals, what it shows of itself, and its results. Imports no torch."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from flows.report.curves import Curve, curves_of_stage, latest_curves
from schemas.artifacts import AssetArtifact, IntakeArtifact, ReferenceArtifact, ScoresArtifact, StageName
from schemas.runs import TITLES, RunRecord
from stages.runtime.errors import StageError
from stages.runtime.files import is_locked
from stages.runtime.records import newest_records, read_record
from stages.runtime.store import DamagedArtifactError, LocalStore
from stages.runtime.tracking.files import entries_of
from stages.runtime.tracking.live import live_folder
from stages.runtime.tracking.messages import duration

RunState = Literal["runs", "finished", "stopped", "failed", "waits"]
WORDS: dict[RunState, str] = {
    "runs": "goes on",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "waits": "has not begun",
}
MOST_LISTED = 200
"""Runs on the list, the newest."""
VIEWS, MESH = "views.png", "mesh.glb"


@dataclass(frozen=True)
class StageView:
    """One stage. state: computed, resumed or cached; runs, or waits. shown: the newest pictures, by name, with their versions."""

    name: StageName
    title: str
    state: str
    words: str
    share: float
    """How far it is, 0 to 1."""
    shown: dict[str, int]
    curves: int
    """The version of its curves; 0 without any."""


@dataclass(frozen=True)
class RunView:
    """A run as its page shows it now. mesh: the stage whose mesh there is, and its version. report: whether there is one to link to."""

    state: RunState
    words: str
    go_on_with: str
    stages: tuple[StageView, ...]
    mesh: tuple[StageName, int] | None
    report: bool


def view_of(record: RunRecord, store: Path) -> RunView:
    """What there is to see of a run now."""
    state, done = run_state(record, store), True
    stages = []
    for name in record.chain:
        # The stage behind the last one that is done.
        before, done = done, name in record.stages
        stages.append(_stage(record, store, name, runs=state == "runs" and before and not done))
    go_on = f"dreampolish resume {record.run}" if state in ("stopped", "failed", "waits") else ""
    return RunView(
        state=state,
        words=WORDS[state],
        go_on_with=go_on,
        stages=tuple(stages),
        mesh=mesh_of(record, store),
        report=report_of(record) is not None,
    )


def run_state(record: RunRecord, store: Path) -> RunState:
    """Whether a run goes on: its lock is held. Else how it ended, by its output and the last line of its journal."""
    lock = store / "locks" / f"run-{record.run}"
    if lock.exists() and is_locked(lock):
        return "runs"
    if record.output is not None and Path(record.output).is_dir():
        return "finished"
    status = _last_status(store, record.run)
    if status == "FAILED":
        return "failed"
    # Without a last word its process was killed.
    return "stopped" if status is not None or record.stages or live_folder(store, record.run).is_dir() else "waits"


def _last_status(store: Path, run: str) -> str | None:
    try:
        content = (store / "journals" / run / "run.jsonl").read_bytes()
    except OSError:
        return None
    return next((entry["status"] for entry in reversed(list(entries_of(content))) if "status" in entry), None)


def _stage(record: RunRecord, store: Path, name: StageName, *, runs: bool) -> StageView:
    entry, folder = record.stages.get(name), live_folder(store, record.run)
    progress = _progress(folder / f"{name}-progress.json") if entry is None else None
    shown = {path.name.removeprefix(f"{name}-").removesuffix(".png"): _version(path) for path in folder.glob(f"{name}-*.png")}
    if entry is not None and (pictures := result_pictures(record, store, name)):
        shown["views"] = _version(pictures[0])
    share = 1.0 if entry is not None else 0.0 if progress is None else progress[0]
    if entry is not None:
        state, words = str(entry.state), duration(entry.seconds)
    else:
        state, words = ("runs", "" if progress is None else progress[1]) if runs else ("waits", "")
    return StageView(
        name=name,
        title=TITLES[name],
        state=state,
        words=words,
        share=share,
        shown=shown,
        curves=curves_version(record, store, name),
    )


def _progress(file: Path) -> tuple[float, str] | None:
    """How far a stage is, 0 to 1 and in words; None where it has not said so."""
    try:
        noted = json.loads(file.read_bytes())
        step, total, left = int(noted["step"]), int(noted["total"]), noted["left_s"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    rest = "" if left is None or step >= total else f", {duration(float(left))} left"
    return step / max(total, 1), f"step {step} of {total}{rest}"


def _version(path: Path) -> int:
    """Changes whenever a file does; 0 for none. Microseconds: a browser's numbers hold no nanoseconds."""
    try:
        return path.stat().st_mtime_ns // 1000
    except OSError:
        return 0


def curves_version(record: RunRecord, store: Path, name: StageName) -> int:
    """The version of a stage's curves in this run's journals."""
    return max((_version(path) for path in (store / "journals" / record.run).glob(f"{name}-*.jsonl")), default=0)


def curves_now(record: RunRecord, store: Path, name: StageName) -> dict[str, Curve]:
    """A stage's curves so far; of a result that was found, those of the run that computed it."""
    entry = record.stages.get(name)
    if entry is None:
        return latest_curves(store, record.run, name)
    return curves_of_stage(store, record.run, name, entry.fingerprint)


def result_pictures(record: RunRecord, store: Path, name: StageName) -> list[Path]:
    """The pictures of a finished stage: the reference, or views from all around; empty where there are none, or they are damaged."""
    entry = record.stages[name]
    try:
        return _pictures(store, name, entry.fingerprint, entry.scores)
    except (KeyError, OSError, DamagedArtifactError):
        return []


@lru_cache(maxsize=1024)
def _pictures(store: Path, name: StageName, fingerprint: str, scores: str | None) -> list[Path]:
    """Verified once: pages ask every few seconds."""
    local = LocalStore(store)
    folder = local.folder(name, fingerprint)
    match name:
        case "reference":
            return [folder / local.open(name, fingerprint, ReferenceArtifact).image.path]
        case "intake":
            return [folder / preview.path for preview in local.open(name, fingerprint, IntakeArtifact).previews]
    if scores is None:
        return []
    return [local.folder("scores", scores) / preview.path for preview in local.open("scores", scores, ScoresArtifact).previews]


def mesh_of(record: RunRecord, store: Path) -> tuple[StageName, int] | None:
    """The stage furthest on that has a mesh to show, and the mesh's version."""
    for name in reversed(record.chain):
        path = mesh_path(record, store, name)
        if path is not None:
            return name, _version(path)
    return None


def mesh_path(record: RunRecord, store: Path, name: StageName) -> Path | None:
    """The GLB of a stage: the finished asset's, or what a stage shows of its mesh so far."""
    if name == "export" and name in record.stages:
        try:
            return _asset(store, record.stages[name].fingerprint)
        except (KeyError, OSError, DamagedArtifactError):
            return None
    path = live_folder(store, record.run) / f"{name}-{MESH}"
    return path if path.is_file() else None


@lru_cache(maxsize=256)
def _asset(store: Path, fingerprint: str) -> Path:
    local = LocalStore(store)
    return local.folder("export", fingerprint) / local.open("export", fingerprint, AssetArtifact).glb.path


def report_of(record: RunRecord) -> Path | None:
    """The page of a finished run."""
    path = None if record.output is None else Path(record.output) / "report.html"
    return path if path is not None and path.is_file() and not path.is_symlink() else None


def listed(store: Path) -> Iterator[tuple[RunRecord, RunState, int]]:
    """The newest runs: record, state, and how many of their stages are done. Unreadable records are left out."""
    for path in newest_records(store)[:MOST_LISTED]:
        try:
            record = read_record(store, path.stem)
        except StageError:
            continue
        yield record, run_state(record, store), len(record.stages)
