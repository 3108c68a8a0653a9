"""The code behind functions of this installation, looked up in the user's cache folder: to walk it takes seconds in every process.

A note counts only for the very sources that it was made of: its name holds a digest of all of ours and of the Python that parses them.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from dreampolish.kernels.cache import cache_folder
from dreampolish.optim.atomic_files import write_atomically
from stages.runtime.files import PROJECT
from stages.runtime.keys.code import ENDS, OURS, Code, code_of

KEPT = 16
"""Notes that stay when a new one is written, the newest ones."""


def known_code(module: str, function: str, ends: Sequence[str] = ENDS) -> Code:
    """What `code_of` finds in this installation."""
    return _known_code(module, function, tuple(ends))


@cache
def _known_code(module: str, function: str, ends: tuple[str, ...]) -> Code:
    place = _place(PROJECT, f"{module}.{function}", ends)
    found = _read(place)
    if found is None:
        found = code_of(module, function, PROJECT, ends)
        _note(place, found)
    return found


def _place(root: Path, function: str, ends: Sequence[str]) -> Path:
    said = json.dumps([sources_digest(root), sys.version_info[:3], function, *ends])
    return cache_folder() / "code" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.json"


@cache
def sources_digest(root: Path) -> str:
    """Of the names and bytes of all our source files below a folder."""
    found = hashlib.sha256()
    for package in OURS:
        for path in sorted((root / package).rglob("*.py")):
            found.update(f"{path.relative_to(root)}\n{path.stat().st_size}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def _read(place: Path) -> Code | None:
    """What was noted; None where nothing can be read."""
    try:
        noted = json.loads(place.read_bytes())
        return Code(str(noted["digest"]), frozenset(noted["names"]), frozenset(noted["libraries"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(place: Path, code: Code) -> None:
    """A cache that cannot be written costs time alone."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        text = {"digest": code.digest, "names": sorted(code.names), "libraries": sorted(code.libraries)}
        write_atomically(place, json.dumps(text).encode(), mode=0o600)
        notes = sorted(place.parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in notes[KEPT:]:
            old.unlink(missing_ok=True)
