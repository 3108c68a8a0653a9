"""The code behind functions of this installation, noted in the user's cache folder: to walk it takes seconds in every process.

A note counts only for the very sources that it was made of, and for the Python that parsed them.
"""

import hashlib
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stages.runtime.files import PROJECT
from stages.runtime.keys.code import ENDS, OURS, Code, code_of
from stages.runtime.keys.notes import Note


def known_code(module: str, function: str, ends: Sequence[str] = ENDS) -> Code:
    """What `code_of` finds in this installation."""
    return _known_code(module, function, tuple(ends))


@cache
def _known_code(module: str, function: str, ends: tuple[str, ...]) -> Code:
    note = Note("code", [sources_digest(PROJECT), sys.version_info[:3], module, function, *ends])
    found = _code(note.read())
    if found is None:
        found = code_of(module, function, PROJECT, ends)
        note.write({"digest": found.digest, "names": sorted(found.names), "libraries": sorted(found.libraries)})
    return found


@cache
def sources_digest(root: Path) -> str:
    """Of the names and bytes of all our source files below a folder."""
    found = hashlib.sha256()
    for package in OURS:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            found.update(f"{path.relative_to(root)}\n{len(content)}\n".encode() + content)
    return found.hexdigest()


def _code(noted: object) -> Code | None:
    """What a note says; None for one that is damaged."""
    if not isinstance(noted, dict) or not {"digest", "names", "libraries"} <= noted.keys():
        return None
    return Code(str(noted["digest"]), frozenset(noted["names"]), frozenset(noted["libraries"]))
