"""Folders of priors that were found sound before. Finding out lays their networks out by diffusers and transformers, whose import takes
seconds; a folder whose files are the same, looked at by the same code and libraries, need not be laid out again."""

from pathlib import Path

from dreampolish.priors.folders.digests import digest
from dreampolish.priors.folders.source import PriorSource
from stages.runtime.keys.key import library_versions
from stages.runtime.keys.notes import Note
from stages.runtime.keys.remembered import known_code


def role_of_prior(source: PriorSource) -> tuple[str, str]:
    """Role and family of a prior that can be opened. Raises PriorError in one line where it cannot.

    A folder's answer is kept in the cache folder; a hub's revision is looked at each time.
    """
    folder = Path(source.location)
    note = _note(folder) if folder.is_dir() else None
    match None if note is None else note.read():
        case [str(role), str(family)]:
            return role, family
    from dreampolish.priors.multiview.loading import contents_of_any

    found = contents_of_any(source)
    if note is not None:
        note.write([found.role, found.family])
    return found.role, found.family


def _note(folder: Path) -> Note:
    code = known_code("dreampolish.priors.multiview.loading", "contents_of_any")
    return Note("priors", [digest(folder), code.digest, library_versions(code.libraries)])
