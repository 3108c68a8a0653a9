"""What a prior's folder holds, as one SHA-256."""

import hashlib
from functools import lru_cache
from pathlib import Path

from dreampolish.optim.atomic_files import sha256_of
from dreampolish.priors.folders.source import PriorError, referenced_folder, references

COUNTED = (".json", ".safetensors", ".txt", ".model", ".onnx")
"""Endings of the files that count: settings, weights, vocabularies. Pictures and cards do not."""


def digest(folder: Path) -> str:
    """SHA-256 over the relative paths and contents of a prior's files; pictures and cards do not count.

    Components that `model_index.json` refers to, by a relative path or in a Python package, count as well.
    PriorError when one is not there.
    """
    if not folder.is_dir():
        raise PriorError(f"no prior folder at {folder.absolute()}: restore it from the repository")
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in COUNTED):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + _file_digest(path))
    for reference in sorted(set(references(folder).values())):
        total.update(digest(referenced_folder(folder, reference)).encode())
    return total.hexdigest()


def packaged_digest(reference: str) -> str:
    """The digest of the files that a "package:NAME/sub/folder" reference means. PriorError when the package is not installed."""
    return digest(referenced_folder(Path(), reference))


def _file_digest(path: Path) -> bytes:
    """SHA-256 of a file, read once in a process unless its size or time changes."""
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: Path, size: int, modified_ns: int) -> bytes:
    return bytes.fromhex(sha256_of(path))
