"""Folders of priors that were found sound before. Finding out lays their networks out by diffusers and transformers, whose import takes
seconds; a folder whose files are the same, looked at by the same code and libraries, need not be laid out again."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from dreampolish.kernels.cache import cache_folder
from dreampolish.optim.atomic_files import write_atomically
from dreampolish.priors.folders.digests import digest
from dreampolish.priors.folders.source import PriorSource
from stages.runtime.keys.key import library_versions
from stages.runtime.keys.remembered import known_code


def role_of_prior(source: PriorSource) -> tuple[str, str]:
    """Role and family of a prior that can be opened. Raises PriorError in one line where it cannot.

    A folder's answer is kept in the cache folder; a hub's revision is looked at each time.
    """
    folder = Path(source.location)
    place = _place(folder) if folder.is_dir() else None
    known = _read(place)
    if known is not None:
        return known
    from dreampolish.priors.multiview.loading import contents_of_any

    found = contents_of_any(source)
    if place is not None:
        # A cache that cannot be written costs time alone.
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, json.dumps([found.role, found.family]).encode())
    return found.role, found.family


def _place(folder: Path) -> Path:
    code = known_code("dreampolish.priors.multiview.loading", "contents_of_any")
    said = json.dumps([digest(folder), code.digest, library_versions(code.libraries)])
    return cache_folder() / "priors" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.json"


def _read(place: Path | None) -> tuple[str, str] | None:
    """What was noted; None where nothing can be read."""
    if place is None:
        return None
    try:
        noted: Any = json.loads(place.read_bytes())
        role, family = noted
    except (OSError, ValueError):
        return None
    return str(role), str(family)
