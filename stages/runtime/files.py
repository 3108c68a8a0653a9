"""Locks that die with their process, the store's place, who may read its files, and a full or failing disk told in one line."""

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.runtime.errors import StageError

PROJECT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages: the checkout, or what pip installed them into."""
SHIPPED = PROJECT / "dreampolish" / "shipped"
"""What an installed package has in place of the checkout's other folders; setup.py puts it there."""

_DISK_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def store_folder() -> Path:
    """The store of this process: DREAMPOLISH_STORE, else ./store."""
    return Path(os.environ.get("DREAMPOLISH_STORE") or "store").resolve()


USERS_UMASK = "DREAMPOLISH_UMASK"
"""Environment variable of the umask under which a command was called; its children find it there too."""


def keep_private() -> None:
    """From now on, files of this process and of its children are their owner's alone, but for those made inside `for_the_user`."""
    before = os.umask(0o077)
    os.environ.setdefault(USERS_UMASK, f"{before:03o}")


@contextmanager
def for_the_user() -> Iterator[None]:
    """Inside, files get the permissions that the user's umask gives: outputs are the user's to share."""
    theirs = os.environ.get(USERS_UMASK)
    if theirs is None:
        yield
        return
    private = os.umask(int(theirs, 8))
    try:
        yield
    finally:
        os.umask(private)


def close_store(store: Path) -> None:
    """Make a store that an earlier version left open its owner's alone. A folder that is none, or somebody else's, stays as it is."""
    if not ((store / "runs").is_dir() or (store / "services").is_dir()):
        return
    found = store.stat()
    if found.st_mode & 0o077 and found.st_uid == os.geteuid():
        store.chmod(0o700)


def project_file(name: str | Path) -> Path:
    """Where a file or folder of the project lies (`configs`, `priors/home`): in the checkout, else in the installed package.

    An absolute path stays as it is.
    """
    return (SHIPPED if SHIPPED.is_dir() else PROJECT) / name


def take_lock(
    path: Path, *, wait_s: float = math.inf, give_up: Callable[[], bool] | None = None
) -> AbstractContextManager[object]:
    """Take a lock file's lock; the block given with the result holds it. A dead holder's is free at once, the file stays.

    wait_s: how long to wait for another holder. give_up: asked ten times a second; True ends the wait. Both end in BlockingIOError.
    """
    try:
        # Without a fallback: another kind of lock would outlive its process.
        return FileLock(path, fallback_to_soft=False).acquire(timeout=wait_s, poll_interval=0.1, cancel_check=give_up)
    except Timeout as error:
        raise BlockingIOError(errno.EAGAIN, "held by another process", str(path)) from error


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock file's lock now."""
    try:
        with take_lock(path, wait_s=0):
            return False
    except BlockingIOError:
        return True


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
