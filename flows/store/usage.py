"""What takes the room of a store: results, runs, studies and the rest, in bytes."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.store.verify import result_folders
from schemas.runs import RunRecord
from stages.runtime.errors import StageError
from stages.runtime.records import newest_records, read_record
from stages.runtime.store import MANIFEST
from stages.runtime.tracking.files import PARENT_JOURNAL, PARENT_TAG, entries_of

Key = tuple[str, str]
"""A result: its stage or `scores`, and its key."""


@dataclass(frozen=True)
class Result:
    """A result's folder. modified: when it was published, or last written to where it has no manifest; seconds since 1970."""

    key: Key
    bytes: int
    modified: float
    is_finished: bool


@dataclass(frozen=True)
class Run:
    """A run's record with what it names. journal: bytes of its journals; study: the name of the study whose cell it is, or empty."""

    record: RunRecord
    modified: float
    keys: frozenset[Key]
    journal: int
    study: str


def bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder; 0 for what is not there. Links are not followed."""
    try:
        with os.scandir(path) as entries:
            return sum(bytes_of(Path(each)) if each.is_dir(follow_symlinks=False) else _size(each) for each in entries)
    except NotADirectoryError:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _size(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def all_results(store: Path) -> Iterator[Result]:
    """Every result of a store, finished or not."""
    for folder in result_folders(store):
        try:
            manifest = folder / MANIFEST
            is_finished = manifest.is_file()
            modified = (manifest if is_finished else folder).stat().st_mtime
        except FileNotFoundError:
            continue  # removed meanwhile
        yield Result((folder.parent.name, folder.name), bytes_of(folder), modified, is_finished)


def all_runs(store: Path) -> list[Run]:
    """Every run of a store, the one touched last first. Raises StageError for a record that cannot be read: what it keeps is unknown."""
    found = []
    for path in newest_records(store):
        try:
            record, modified = read_record(store, path.stem, fresh=False), path.stat().st_mtime
        except FileNotFoundError:
            continue
        except StageError as error:
            if not path.exists():
                continue  # removed meanwhile
            raise StageError(error.what, None, f"what it names cannot be told from what may go: move {path} away") from None
        folder = store / "journals" / record.run
        found.append(Run(record, modified=modified, keys=keys_of(record), journal=bytes_of(folder), study=study_of(folder)))
    return found


def keys_of(record: RunRecord) -> frozenset[Key]:
    """The results that a run names."""
    entries = record.stages.values()
    scores = {("scores", entry.scores) for entry in entries if entry.scores is not None}
    return frozenset({(entry.name, entry.fingerprint) for entry in entries} | scores)


def study_of(journals: Path) -> str:
    """The name of the study that a run is a cell of, from its journal's first line; empty for others."""
    try:
        with (journals / f"{PARENT_JOURNAL}.jsonl").open("rb") as file:
            first = next(entries_of(file.readline()), {})
    except OSError:
        return ""
    tags = first.get("tags", {})
    return str(tags.get("ablation", tags[PARENT_TAG])) if PARENT_TAG in tags else ""


@dataclass(frozen=True)
class Usage:
    """Bytes. named: by run, of what it names; alone: of that, what no other run names, which goes when it does."""

    by_stage: dict[str, int]
    counts: dict[str, int]
    unnamed: int
    """Of results that no run names."""
    named: dict[str, int]
    alone: dict[str, int]
    by_study: dict[str, int]
    rest: dict[str, int]
    """The other folders of the store."""

    @property
    def total(self) -> int:
        """Of the whole store."""
        return sum(self.by_stage.values()) + sum(self.rest.values())


def usage_of(store: Path) -> Usage:
    """What takes the room."""
    results, runs = list(all_results(store)), all_runs(store)
    size = {result.key: result.bytes for result in results}
    users = Counter(key for run in runs for key in run.keys)
    by_stage, counts, by_study = Counter[str](), Counter[str](), Counter[str]()
    for result in results:
        by_stage[result.key[0]] += result.bytes
        counts[result.key[0]] += 1
    for study in {run.study for run in runs if run.study}:
        cells = [run for run in runs if run.study == study]
        by_study[study] = _sum(size, {key for run in cells for key in run.keys}) + sum(run.journal for run in cells)
    folders = sorted(path.name for path in store.iterdir()) if store.is_dir() else []
    return Usage(
        by_stage=dict(by_stage),
        counts=dict(counts),
        unnamed=sum(bytes for key, bytes in size.items() if key not in users),
        named={run.record.run: _sum(size, run.keys) + run.journal for run in runs},
        alone={run.record.run: _sum(size, (key for key in run.keys if users[key] == 1)) + run.journal for run in runs},
        by_study=dict(by_study),
        rest={name: bytes_of(store / name) for name in folders if name not in counts},
    )


def _sum(size: dict[Key, int], keys: Iterable[Key]) -> int:
    return sum(size.get(key, 0) for key in keys)


def in_words(count: int) -> str:
    """Bytes in the unit that fits."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"


def as_json(usage: Usage) -> dict[str, object]:
    """What `store du --json` prints."""
    return json.loads(json.dumps({**usage.__dict__, "total": usage.total}))
