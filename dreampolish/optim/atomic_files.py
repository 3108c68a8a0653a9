"""Files written whole or not at all, forced to the disk, and their hashes. Nothing else in the repository does this by hand."""

import hashlib
import os
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, payload: bytes, mode: int = 0o666) -> None:
    """Replace a file by its new content or leave it as it was; durable on return.

    mode: of the file, less the umask; 0o600 for its owner's alone. A kill inside leaves a file named as `partial_path` says, which
    nobody reads.
    """
    partial = partial_path(path)
    partial.unlink(missing_ok=True)
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def partial_path(path: Path) -> Path:
    """Where this process writes a file before it takes its place: hidden, and named after the process."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def sync_file(path: Path) -> None:
    """Force a written file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
