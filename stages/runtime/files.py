"""Durable writes, hashes, and a full or failing disk told in one line."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.runtime.errors import StageError

PROJECT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages: the checkout, or what pip installed them into."""
SHIPPED = PROJECT / "dreampolish" / "shipped"
"""What an installed package has in place of the checkout's other folders; setup.py puts it there."""

_DISK_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def store_folder() -> Path:
    """The store of this process: DREAMPOLISH_STORE, else ./store."""
    return Path(os.environ.get("DREAMPOLISH_STORE") or "store").resolve()


def project_file(name: str | Path) -> Path:
    """Where a file or folder of the project lies (`configs`, `priors/home`): in the checkout, else in the installed package.

    An absolute path stays as it is.
    """
    return (SHIPPED if SHIPPED.is_dir() else PROJECT) / name


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, payload: bytes) -> None:
    """Replace a file by its new content or leave it as it was; durable on return."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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


def is_disk_error(error: BaseException) -> bool:
    """Whether an error means that the disk is full, failing or read-only (safetensors tells it in words only)."""
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS
    return type(error).__name__ == "SafetensorError" and any(f"os error {code}" in str(error) for code in _DISK_ERRORS)


@contextmanager
def disk_errors_in_one_line(folder: Path) -> Iterator[None]:
    """Turn disk errors into a StageError that names the path and the space left."""
    try:
        yield
    except Exception as error:
        if not is_disk_error(error):
            raise
        where = getattr(error, "filename", None) or folder
        reason = getattr(error, "strerror", None) or str(error)
        verb = "read or write" if getattr(error, "errno", None) == errno.EIO else "write"
        raise StageError(
            f"cannot {verb} {where}: {reason}, {free_space(folder)} free",
            None,
            "make room or point DREAMPOLISH_STORE elsewhere, then resume",
        ) from error


def free_space(folder: Path) -> str:
    """Free space of the disk that holds a folder, in words."""
    while not folder.exists():
        folder = folder.parent
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB"
