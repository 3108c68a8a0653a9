"""Metrics, pictures, parameters and datasets of runs: journalled on disk first, sent to MLflow in batches.

A journal is a JSON-lines file; beside it `<name>.sent.json` holds the tracker's run id and how many bytes have been sent. A line
carries its own timestamp, and MLflow's store keys a metric by (run, key, timestamp, step, value), so a batch that is sent twice after
a kill is stored once. A step that is computed again after a resume is not journalled again. Without a tracker the journal waits.
MLflow's parameters cannot change: a setting that does is noted in a tag. One process sends a run's journals at a time. mlflow is
imported when something is sent first.
"""

import errno
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stages.runtime.files import database_uri
from stages.runtime.tracking.datasets import ReadData, entry_of, inputs_of
from stages.runtime.tracking.files import (
    entries_of,
    flattened,
    folders_behind,
    forget_if_sent,
    note_unsent,
    read_cursor,
    sending,
    unsent_journals,
    whole_lines,
    write_cursor,
)
from stages.runtime.tracking.relocatable import DATABASE, LOCATION, file_of, make_relocatable, send_files

if TYPE_CHECKING:
    from mlflow import MlflowClient

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
EXPERIMENT = "dreampolish"
BATCH = 1000
"""Metrics in one log_batch call; MLflow's limit."""
SEND_INTERVAL_S = 10.0
RETRY_INTERVAL_S = 60.0
SEND_WAIT_S = 10.0
"""For another process that is sending the same run's journals."""
DATABASE_ATTEMPTS, DATABASE_PAUSE_S = 4, 0.5
"""SQLite refuses at once what would lock two writers against each other; a moment later it takes it."""
PARENT_JOURNAL = "run"
PARENT_TAG = "dreampolish.parent"
"""Tag of a run that is part of a larger one: the folder of that one's journals."""


@dataclass(frozen=True)
class Place:
    """Where figures go. uri: the tracker's; artifacts: folder for pictures when the tracker is a local database, else None: its server
    keeps them."""

    uri: str
    artifacts: Path | None


def place_from_store(store: Path, uri: str | None) -> Place:
    """The tracker at a URI, or the database inside a store."""
    if uri is None or uri.startswith("sqlite"):
        return Place(uri or database_uri(store / DATABASE), store / "mlartifacts")
    return Place(uri, None)


class Journal:
    """One run's figures on disk, replayed to the tracker.

    folder: one for all journals of a pipeline run. name: `run` for the pipeline run itself, else a stage's; stages become children of
    the pipeline run. tags: of the new run at the tracker.
    """

    def __init__(self, folder: Path, name: str, title: str, tags: Mapping[str, str]) -> None:
        self.folder, self.name = folder, name
        self._path, self._cursor_path = folder / f"{name}.jsonl", folder / f"{name}.sent.json"
        self._last_step: dict[str, int] = {}
        self.largest: dict[str, float] = {}
        """The largest value of every figure so far, earlier processes' included."""
        self._params: dict[str, str] = {}
        self._data: list[dict[str, Any]] = []
        self._writing = threading.Lock()
        self._next_send = time.monotonic() + SEND_INTERVAL_S
        folder.mkdir(parents=True, exist_ok=True)
        self.is_new = not self._path.exists()
        """Whether this object began the journal."""
        if not self.is_new:
            self._read_back()
        else:
            self._write({"title": title, "tags": dict(tags)})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a step; those of a step already journalled are left out, NaN is refused by a ValueError."""
        fresh = {key: float(value) for key, value in values.items() if step > self._last_step.get(key, -1)}
        bad = [key for key, value in fresh.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(f"metric {bad[0]} is {fresh[bad[0]]} at step {step}")
        if fresh:
            self._write({"step": step, "metrics": fresh})
            self._note(step, fresh)

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings, nested or flat; those already journalled with the same values are left out."""
        flat = {key: str(value)[:500] for key, value in flattened(values).items()}
        fresh = {key: value for key, value in flat.items() if self._params.get(key) != value}
        if fresh:
            self._write({"params": fresh})
            self._params.update(fresh)

    def reads(self, data: ReadData) -> None:
        """A dataset that the run reads; one that is journalled already is left out."""
        entry = entry_of(data)
        if entry not in self._data:
            self._write({"dataset": entry})
            self._data.append(entry)

    def next_step(self, prefix: str) -> int:
        """The step behind the last one of all figures whose names begin so."""
        return 1 + max((step for key, step in list(self._last_step.items()) if key.startswith(prefix)), default=-1)

    def set_tags(self, values: Mapping[str, str]) -> None:
        """Tags, replacing those of the same names."""
        self._write({"tags": dict(values)})

    def image(self, name: str, step: int, picture: np.ndarray) -> None:
        """A picture (H, W, 3) of a step, uint8 or floats in [0, 1]."""
        key = f"image:{name}"
        if step <= self._last_step.get(key, -1):
            return
        if picture.dtype != np.uint8:
            picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
        file = f"{self.name}-{name.replace('/', '~')}-{step:06d}.png"
        Image.fromarray(picture).save(self.folder / file)
        self._write({"step": step, "image": name, "file": file})
        self._last_step[key] = step

    def file(self, source: Path) -> None:
        """A file for the run's page at the tracker, under its own name; a later one of that name takes its place."""
        held = f"{self.name}-file-{source.name}"
        shutil.copyfile(source, self.folder / held)
        self._write({"artifact": source.name, "file": held})

    def end(self, status: str) -> None:
        """Close the run at the tracker: FINISHED, FAILED or KILLED."""
        self._write({"status": status})

    def send_is_due(self) -> bool:
        """Whether `send_if_due` would send."""
        return time.monotonic() >= self._next_send

    def send_if_due(self, place: Place) -> None:
        """Replay what is new, at most every ten seconds, more seldom while the tracker is away."""
        if self.send_is_due():
            failure = self._failure(place, 0.0)
            self._next_send = time.monotonic() + (SEND_INTERVAL_S if failure is None else RETRY_INTERVAL_S)

    def send(self, place: Place) -> bool:
        """Replay what is new; False when the tracker could not be reached or stays locked (the journal keeps everything)."""
        for attempt in range(DATABASE_ATTEMPTS):
            time.sleep(DATABASE_PAUSE_S * attempt)
            failure = self._failure(place, SEND_WAIT_S)
            if failure is None or "database is locked" not in str(failure):
                return failure is None
        return False

    def _failure(self, place: Place, wait_s: float) -> Exception | None:
        """Replay what is new; why it could not be sent, or None."""
        try:
            replay(self.folder, self.name, place, wait_s)
        except Exception as error:
            # The tracker's many kinds of error all mean: later.
            logging.getLogger(__name__).debug("tracker away: %s", error)
            return error
        return None

    def _write(self, entry: Mapping[str, Any]) -> None:
        """Append a line whole or not at all: a full disk must not glue the next line to half of this one."""
        line = json.dumps({"t": int(time.time() * 1000), **entry}, separators=(",", ":")).encode() + b"\n"
        with self._writing, self._path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise
        note_unsent(self.folder)

    def _note(self, step: int, values: Mapping[str, float]) -> None:
        """Remember the step and the largest value of every figure of a line."""
        for key, value in values.items():
            self._last_step[key] = step
            self.largest[key] = max(value, self.largest.get(key, value))

    def _read_back(self) -> None:
        content = self._path.read_bytes()
        whole = whole_lines(content)
        if len(whole) != len(content):
            # A kill inside a write: the torn line is cut off, or the next one would be glued to it.
            os.truncate(self._path, len(whole))
        for entry in entries_of(whole):
            self._note(entry.get("step", 0), entry.get("metrics", {}))
            if "image" in entry:
                self._last_step[f"image:{entry['image']}"] = entry["step"]
            self._params.update(entry.get("params", {}))
            if "dataset" in entry:
                self._data.append(entry["dataset"])


def replay_all(journals: Path, place: Place) -> int:
    """Send what earlier runs left unsent; journals: the folder of all runs' folders. Returns how many journals were sent.

    A journal that cannot be sent, or that another process is sending, is passed over. Raises what MLflow raises where it is away.
    """
    folders = folders_behind(journals)
    behind = [path for folder in folders for path in unsent_journals(folder)]
    if behind:
        tracker_client(place).search_experiments(max_results=1)
    sent = 0
    for path in behind:
        try:
            replay(path.parent, path.stem, place, wait_s=0.0)
            sent += 1
        except BlockingIOError:
            continue  # another process is sending it
        except Exception as error:
            # One that the tracker refuses must not hold up the others; it is tried again with the next run.
            logging.getLogger(__name__).warning("journal %s is not sent: %s", path, str(error).splitlines()[:1])
    for folder in folders:
        forget_if_sent(folder)
    return sent


def replay(folder: Path, name: str, place: Place, wait_s: float) -> str:
    """Send a journal's unsent part and return the tracker's run id; the parent's journal goes first. Raises what MLflow raises.

    wait_s: how long to wait for another process that is sending this run's journals; then BlockingIOError.
    """
    with sending(folder, wait_s):
        return _replay(folder, name, place, wait_s)


def _replay(folder: Path, name: str, place: Place, wait_s: float) -> str:
    cursor = read_cursor(folder, name)
    content = whole_lines((folder / f"{name}.jsonl").read_bytes())
    first = next(entries_of(content), {})
    client = tracker_client(place)
    if cursor["run"] is None:
        parent, parent_id = _parent_folder(folder, name, first), None
        if parent is not None:
            send_parent = _replay if parent == folder else replay
            parent_id = send_parent(parent, PARENT_JOURNAL, place, wait_s)
        cursor["run"] = _create(client=client, place=place, key=f"{folder.name}/{name}", first=first, parent_id=parent_id)
        write_cursor(folder, name, cursor)
    entries = list(entries_of(content[cursor["sent"] :]))
    _send(client, cursor["run"], folder, entries)
    send_files(client, run=cursor["run"], folder=folder, entries=entries, artifacts=place.artifacts)
    _send_end(client, cursor["run"], entries)
    write_cursor(folder, name, {**cursor, "sent": len(content)})
    for entry in entries:
        if "file" in entry:
            (folder / entry["file"]).unlink(missing_ok=True)
    return str(cursor["run"])


def _parent_folder(folder: Path, name: str, first: Mapping[str, Any]) -> Path | None:
    """Where the parent's journal lies: a stage's beside it, a run's in the folder that its first line names, if it names one."""
    if name != PARENT_JOURNAL:
        parent = folder
    else:
        above = first.get("tags", {}).get(PARENT_TAG)
        if above is None:
            return None
        parent = folder.parent / above
    return parent if (parent / f"{PARENT_JOURNAL}.jsonl").exists() else None


def run_id_at_tracker(folder: Path, name: str) -> str | None:
    """The tracker's id of a journal's run; None before it was first sent."""
    run: str | None = read_cursor(folder, name)["run"]
    return run


def run_page(folder: Path, name: str, place: Place) -> str | None:
    """Where a browser finds a journal's run; None before it was first sent, or when the tracker is no server. Raises what MLflow raises."""
    run = run_id_at_tracker(folder, name)
    if run is None or not place.uri.startswith(("http://", "https://")):
        return None
    return f"{place.uri.rstrip('/')}/#/experiments/{tracker_client(place).get_run(run).info.experiment_id}/runs/{run}"


def tracker_client(place: Place) -> "MlflowClient":
    """MLflow's client for a place."""
    # Before mlflow is imported: it reads these once.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # What a tracker cannot take now is sent later: no trace of it is for the user's eyes.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    database = None if place.artifacts is None else file_of(place.uri)
    if database is not None:
        make_relocatable(database, EXPERIMENT)
    return MlflowClient(tracking_uri=place.uri)


def _create(client: "MlflowClient", place: Place, key: str, first: Mapping[str, Any], parent_id: str | None) -> str:
    """A new run at the tracker, or the one that an interrupted attempt made for the same journal."""
    from mlflow.entities import ViewType

    experiment = experiment_id(client, place)
    found = client.search_runs([experiment], f"tags.`dreampolish.journal` = '{key}'", ViewType.ALL, max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {**first.get("tags", {}), "dreampolish.journal": key, "mlflow.runName": first.get("title", key)}
    if parent_id is not None:
        tags["mlflow.parentRunId"] = parent_id
    return str(client.create_run(experiment, start_time=first.get("t"), tags=tags).info.run_id)


def experiment_id(client: "MlflowClient", place: Place) -> str:
    """The experiment of all runs, made where it is not there yet."""
    from mlflow.exceptions import MlflowException

    existing = client.get_experiment_by_name(EXPERIMENT)
    if existing is not None:
        return str(existing.experiment_id)
    location = None if place.artifacts is None else LOCATION
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException:
        # Another process was faster.
        existing = client.get_experiment_by_name(EXPERIMENT)
        if existing is None:
            raise
        return str(existing.experiment_id)


def _send(client: "MlflowClient", run: str, folder: Path, entries: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    metrics = [
        Metric(key, value, entry["t"], entry["step"]) for entry in entries for key, value in entry.get("metrics", {}).items()
    ]
    tags = {key: value for entry in entries for key, value in entry.get("tags", {}).items()}
    params, changed = _fresh_params(client, run, entries)
    tags.update({f"changed.{key}": value for key, value in changed.items()})
    if any("image" in entry for entry in entries):
        tags["mlflow.loggedImages"] = "true"
    for chunk in _chunks(metrics, BATCH):
        client.log_batch(run, metrics=chunk)
    for some in _chunks([Param(key, value) for key, value in params.items()], 100):
        client.log_batch(run, params=some)
    if data := inputs_of(entries):
        client.log_inputs(run, data)
    if tags:
        client.log_batch(run, tags=[RunTag(key, value) for key, value in tags.items()])


def _send_end(client: "MlflowClient", run: str, entries: list[dict[str, Any]]) -> None:
    ended = [entry for entry in entries if "status" in entry]
    if ended:
        client.set_terminated(run, ended[-1]["status"], end_time=ended[-1]["t"])


def _fresh_params(client: "MlflowClient", run: str, entries: list[dict[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """The parameters that a run has not yet, and the newest values of those that it has with another value."""
    given = [(key, value) for entry in entries for key, value in entry.get("params", {}).items()]
    if not given:
        return {}, {}
    known = dict(client.get_run(run).data.params)
    fresh: dict[str, str] = {}
    for key, value in given:
        if key not in known:
            fresh.setdefault(key, value)
    first = {**fresh, **known}
    return fresh, {key: value for key, value in given if first[key] != value}


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
