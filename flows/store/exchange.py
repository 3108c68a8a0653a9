"""Runs with all they name, to and from a folder or a bucket: files by their hashes, manifests behind them, records last."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dreampolish.optim.atomic_files import write_atomically
from flows.store.usage import Key, keys_of
from schemas.artifacts import artifact_class_of
from schemas.runs import RunRecord
from stages.runtime.command import input_path
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line
from stages.runtime.records import read_record, record_name, record_path, relative_to, write_record
from stages.runtime.shared.remote import Remote
from stages.runtime.shared.results import checked_digest, fetch_file, fetch_result, sealed, send_file, send_result, unsealed
from stages.runtime.store import DamagedArtifactError, LocalStore
from stages.runtime.tracking.files import note_unsent, whole_lines

Say = Callable[[str], None]


@dataclass
class Moved:
    """How a transfer went. there: results that were at the goal already. failed: by run, why it is not whole there."""

    runs: int = 0
    results: int = 0
    there: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def push(store: Path, remote: Remote, runs: Sequence[str], say: Say) -> Moved:
    """Send runs; the same call goes on where one was stopped. runs: ids."""
    moved = Moved()
    for run in runs:
        try:
            _push_run(store, remote, read_record(store, run), moved)
            moved.runs += 1
            say(f"sent {run}")
        except (StageError, DamagedArtifactError, KeyError) as error:
            moved.failed[run] = _words(error)
    return moved


def _push_run(store: Path, remote: Remote, record: RunRecord, moved: Moved) -> None:
    local = LocalStore(store)
    for digest in inputs_of(record):
        send_file(remote, input_path(store, digest), digest)
    for stage, key in _in_order(record):
        sent = send_result(remote, local, local.manifest(stage, key, artifact_class_of(stage)))
        moved.results += sent
        moved.there += not sent
    for path in sorted((store / "journals" / record.run).glob("*.jsonl")):
        remote.write(f"journals/{record.run}/{path.name}", whole_lines(path.read_bytes()))
    content = relative_to(store, record).model_dump_json(indent=1).encode()
    remote.write(record_name(record.run), sealed(content))


def pull(store: Path, remote: Remote, runs: Sequence[str], say: Say) -> Moved:
    """Bring runs; what the store has already stays as it is. runs: ids, or their beginnings; none: all."""
    moved = Moved()
    there = [name.removesuffix(".json") for name in remote.names("runs") if name.endswith(".json")]
    chosen = [run for run in there if not runs or any(run.startswith(each) for each in runs)]
    missing = [each for each in runs if not any(run.startswith(each) for run in chosen)]
    if missing:
        raise StageError(f"no run {missing[0]!r} in {remote.url}", None, f"known: {', '.join(there[:5]) or 'none'}")
    for run in chosen:
        try:
            with disk_errors_in_one_line(store):
                _pull_run(store, remote, run, moved)
            moved.runs += 1
            say(f"fetched {run}")
        except (StageError, DamagedArtifactError, KeyError) as error:
            moved.failed[run] = _words(error)
    return moved


def _pull_run(store: Path, remote: Remote, run: str, moved: Moved) -> None:
    record = remote_record(remote, run)
    if record_path(store, run).is_file():
        mine = read_record(store, run)
        if mine.stages != record.stages:
            raise StageError(f"the store has another run {run}, which stays", None, "move its record away to take this one")
    local, keys = LocalStore(store), _in_order(record)
    for digest in inputs_of(record):
        path = input_path(store, digest)
        if not path.is_file():
            _take_in(remote, digest, path)
    for stage, key in keys:
        if local.has(stage, key):
            moved.there += 1
            continue
        with local.lock(stage, key, lambda: False):
            fetch_result(remote, local, key=key, artifact_class=artifact_class_of(stage))
        moved.results += 1
    _pull_journals(store, remote, run)
    if not record_path(store, run).is_file():
        # Outputs are written from the results: `resume` does.
        write_record(store, record.model_copy(update={"output": None}))


def remote_record(remote: Remote, run: str) -> RunRecord:
    """A run's record there. Raises DamagedArtifactError where it is not what was written."""
    name = record_name(run)
    try:
        record = RunRecord.model_validate_json(unsealed(remote.read(name), name))
    except ValueError:
        raise DamagedArtifactError(f"{name} in {remote.url} is damaged or of another version") from None
    if record.run != run:
        raise DamagedArtifactError(f"{name} in {remote.url} belongs to {record.run}")
    return record


def _take_in(remote: Remote, digest: str, path: Path) -> None:
    """A user's picture or mesh."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    fetch_file(remote, digest, partial)
    partial.replace(path)


def _pull_journals(store: Path, remote: Remote, run: str) -> None:
    """Journals that are not there yet; the tracker of this store gets them with the next run."""
    folder = store / "journals" / run
    for name in remote.names(f"journals/{run}"):
        path = folder / name
        if path.suffix == ".jsonl" and not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, whole_lines(remote.read(f"journals/{run}/{name}")))
            note_unsent(folder)


def inputs_of(record: RunRecord) -> list[str]:
    """Hashes of a run's own pictures and mesh."""
    return list(record.inputs)


def _in_order(record: RunRecord) -> list[Key]:
    """The results that a run names. Raises DamagedArtifactError for a key that is none, such as a path."""
    return sorted((stage, checked_digest(key)) for stage, key in keys_of(record))


def _words(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) else str(error)
