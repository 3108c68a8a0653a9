"""Run records on disk: store/runs/<id>.json, replaced atomically. Paths in them are relative to the store, so that it can move."""

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from dreampolish.optim.atomic_files import write_atomically
from schemas.config.run import Config
from schemas.runs import RunRecord, StageRecord
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line, newest_first
from stages.runtime.shared.remote import Remote
from stages.runtime.shared.results import sealed, unsealed
from stages.runtime.shared.stores import share_input, shared_remote
from stages.runtime.store import DamagedArtifactError


def record_path(store: Path, run_id: str) -> Path:
    """Where a run's record lies."""
    return store / "runs" / f"{run_id}.json"


def write_record(store: Path, record: RunRecord) -> None:
    """Write a run's record, replacing the older one."""
    with disk_errors_in_one_line(store):
        path = record_path(store, record.run)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = relative_to(store, record).model_dump_json(indent=1).encode()
        write_atomically(path, content)
        remote = shared_remote()
        if remote is not None:
            for digest in record.inputs:
                share_input(store, digest)
            remote.write(record_name(record.run), sealed(content))


def relative_to(folder: Path, record: RunRecord) -> RunRecord:
    """A record as it is written into a folder: it and the folders that it names may move together."""
    return _with_output(record, lambda output: os.path.relpath(output, folder.resolve()))


def record_name(run_id: str) -> str:
    """The object of a run's record, where stores are shared."""
    return f"runs/{run_id}.json"


def read_record(store: Path, run_id: str, *, fresh: bool = True) -> RunRecord:
    """A run's record; `run_id`: any unambiguous beginning of an id. Raises StageError if none is found or it cannot be read.

    fresh: in front of a shared store, ask it first; False takes what this machine has.
    """
    remote = shared_remote() if fresh else None
    if remote is not None:
        _bring(store, remote, run_id)
    path = _found(store, run_id)
    try:
        with disk_errors_in_one_line(store):
            record = _record_from(path.read_bytes())
    except OSError as error:
        raise StageError(f"{path} cannot be read: {error.strerror}", None, "look at its permissions") from error
    except ValueError as error:
        raise StageError(f"{path} is damaged or of another version", None, "start a new run") from error
    # An absolute folder, of an earlier version, stays what it is.
    return _with_output(record, lambda output: os.path.normpath(store.resolve() / output))


def _bring(store: Path, remote: Remote, run_id: str) -> None:
    """Bring a run's record, or those whose ids begin so, from the shared store. Raises StageError for one that is damaged there."""
    whole = run_id.isalnum() and record_path(store, run_id).is_file()
    names = (
        [record_name(run_id).partition("/")[2]] if whole else [each for each in remote.names("runs") if each.startswith(run_id)]
    )
    for name in names:
        path = record_path(store, name.removesuffix(".json"))
        try:
            content = unsealed(remote.read(f"runs/{name}"), f"runs/{name}")
            if RunRecord.model_validate_json(content).run != path.stem:
                raise ValueError("another run's")
        except FileNotFoundError:
            continue
        except (DamagedArtifactError, ValueError) as error:
            raise StageError(f"runs/{name} in {remote.url} is damaged", None, "remove it there and start a new run") from error
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def _record_from(content: bytes) -> RunRecord:
    """The record in a file. Runs of a batch share their settings to the letter: those are validated once. Raises ValueError."""
    head, begins, rest = content.partition(b'\n "config": {')
    config, ends, tail = rest.partition(b'\n },\n "created": ')
    if not (begins and ends):
        return RunRecord.model_validate_json(content)
    values = json.loads(head + b'\n "created": ' + tail)
    return RunRecord.model_validate({**values, "config": _config_from(b"{" + config + b"\n }")})


@lru_cache(maxsize=64)
def _config_from(content: bytes) -> Config:
    return Config.model_validate_json(content)


def _found(store: Path, run_id: str) -> Path:
    whole = record_path(store, run_id)
    if run_id.isalnum() and whole.is_file():
        return whole
    matches = sorted((store / "runs").glob(f"{run_id}*.json")) if run_id.isalnum() else []
    if len(matches) != 1:
        known = ", ".join(path.stem for path in (matches or newest_records(store))[:5]) or "none"
        raise StageError(f"no single run {run_id!r} in {store}", None, f"known: {known}")
    return matches[0]


def _with_output(record: RunRecord, change: Callable[[str], str]) -> RunRecord:
    """A record with its output folder named otherwise."""
    return record if record.output is None else record.model_copy(update={"output": change(record.output)})


def newest_records(store: Path, *, fresh: bool = False) -> list[Path]:
    """All records, the newest first. fresh: with those that only the shared store has, if there is one."""
    remote = shared_remote() if fresh else None
    if remote is not None:
        for name in remote.names("runs"):
            if not (store / "runs" / name).is_file():
                _bring(store, remote, name.removesuffix(".json"))
    return newest_first((store / "runs").glob("*.json"))


def noted_prompt(path: Path) -> str | None:
    """The prompt in a record's file, found without reading the rest of it; None where it does not stand where it should."""
    noted = re.search(rb'"prompt": ?("(?:[^"\\]|\\.)*")', path.read_bytes()[:HEAD])
    return None if noted is None else str(json.loads(noted[1]))


HEAD = 8192
"""Bytes of a record's file in which its prompt stands: behind the schema's version and the run's id."""


def record_stage(store: Path, run_id: str, entry: StageRecord, settings: Mapping[str, object]) -> None:
    """Note in a run's record how a stage went, and the settings it was computed with, in one write.

    settings: fields of the run's Config. A run without a record (a bare function call) notes nothing.
    """
    if not record_path(store, run_id).is_file():
        return
    record = read_record(store, run_id)
    config = record.config.model_copy(update=settings)
    write_record(store, record.model_copy(update={"config": config, "stages": {**record.stages, entry.name: entry}}))
