"""The files of a journal: its lines, how far they have been sent, who may send them, and which folders may have lines to send."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dreampolish.optim.atomic_files import write_atomically
from stages.runtime.files import take_lock


def whole_lines(content: bytes) -> bytes:
    """A journal without the torn line that a kill may have left at its end."""
    return content[: content.rfind(b"\n") + 1]


def read_cursor(folder: Path, name: str) -> dict[str, Any]:
    """The tracker's run id of a journal and how many of its bytes were sent; of one that is damaged or not there: none."""
    try:
        cursor = json.loads((folder / f"{name}.sent.json").read_bytes())
        return {"run": cursor["run"], "sent": int(cursor["sent"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"run": None, "sent": 0}


def write_cursor(folder: Path, name: str, cursor: Mapping[str, Any]) -> None:
    """Replace what `read_cursor` gives."""
    write_atomically(folder / f"{name}.sent.json", json.dumps(cursor).encode())


def sending(folder: Path, wait_s: float) -> AbstractContextManager[object]:
    """Hold the right to send a folder's journals; a dead holder's is free at once."""
    return take_lock(folder / ".sending", wait_s=wait_s)


UNSENT = ".unsent"
"""Beside the runs' folders: a file for each that may have lines which the tracker has not, so that a run's start need not look at all."""
ALL_NOTED = ".all"
"""In there: folders of before have their files too."""


def note_unsent(folder: Path) -> None:
    """Note that a folder's journals may have lines to send. Called after a line was written."""
    note = folder.parent / UNSENT / folder.name
    try:
        note.touch()
    except FileNotFoundError:
        note.parent.mkdir(exist_ok=True)
        note.touch()


def folders_behind(journals: Path) -> list[Path]:
    """The folders whose journals may have lines to send, by name. journals: the folder of all of them."""
    notes = journals / UNSENT
    if journals.is_dir() and not (notes / ALL_NOTED).exists():
        notes.mkdir(exist_ok=True)
        for path in journals.iterdir():
            if path.is_dir() and path != notes:
                note_unsent(path)
        (notes / ALL_NOTED).touch()
    names = os.listdir(notes) if notes.is_dir() else []
    return [journals / name for name in sorted({name.partition("~")[0] for name in names if name != ALL_NOTED})]


def forget_if_sent(folder: Path) -> None:
    """Remove a folder's note where all its lines have been sent.

    The note is laid aside before the folder is looked at: a line that is written meanwhile makes a new one, and after a kill what was
    laid aside counts as a note.
    """
    note = folder.parent / UNSENT / folder.name
    if note.exists():
        note.replace(note.with_name(f"{note.name}~{os.getpid()}"))
    aside = [path for path in note.parent.iterdir() if path.name.startswith(f"{note.name}~")]
    if unsent_journals(folder):
        note.touch()
    for path in aside:
        path.unlink(missing_ok=True)


def unsent_journals(folder: Path) -> list[Path]:
    """A folder's journals that have lines which were not sent, by name."""
    paths = sorted(folder.glob("*.jsonl"))
    return [path for path in paths if read_cursor(folder, path.stem)["sent"] < path.stat().st_size]


def entries_of(content: bytes) -> Iterator[dict[str, Any]]:
    """A journal's lines, damaged ones passed over."""
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "t" in entry:
            yield entry


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def folders_with_tag(journals: Path, name: str, key: str, values: Collection[str]) -> Iterator[Path]:
    """The folders, by name, that have a journal of that name in which a tag was given one of the values; unreadable ones are left out."""
    for path in sorted(journals.glob(f"*/{name}.jsonl")):
        try:
            entries = list(entries_of(path.read_bytes()))
        except OSError:
            continue
        tags = [entry["tags"] for entry in entries if isinstance(entry.get("tags"), dict)]
        if any(given.get(key) in values for given in tags):
            yield path.parent
