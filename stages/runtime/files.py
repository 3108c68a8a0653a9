"""Locks that die with their process, the store's place, who may read its files, and a full or failing disk told in one line."""

import errno
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from stages.runtime.errors import StageError

PROJECT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages: the checkout, or what pip installed them into."""
SHIPPED = PROJECT / "dreampolish" / "shipped"
"""What an installed package has in place of the checkout's other folders; setup.py puts it there."""

_DISK_ERRORS = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FOLDER_ERRORS = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}


def store_folder() -> Path:
    """The store of this process: DREAMPOLISH_STORE, else ./store. In front of a shared store its cache: DREAMPOLISH_STORE_CACHE, else
    ./store."""
    named = os.environ.get(CACHE) if shared_url() else os.environ.get("DREAMPOLISH_STORE")
    return Path(named or "store").resolve()


CACHE = "DREAMPOLISH_STORE_CACHE"
"""Environment variable of the folder in which a shared store's results are kept on this machine."""


def shared_url() -> str | None:
    """The address of the store that machines share, as DREAMPOLISH_STORE names it; None where the store is a folder of this machine."""
    url = os.environ.get("DREAMPOLISH_STORE", "")
    return url if "://" in url else None


def store_environment(store: Path) -> dict[str, str]:
    """What lets another process have this process's store."""
    url = shared_url()
    return {"DREAMPOLISH_STORE": str(store)} if url is None else {"DREAMPOLISH_STORE": url, CACHE: str(store)}


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


CONFIGS = project_file("configs")
"""The presets and studies."""


def database_uri(path: Path, driver: str = "sqlite") -> str:
    """The URI of a SQLite file, whatever letters its path has: an unescaped ? would end the path, an unescaped % change it."""
    if re.fullmatch(r"[\w/.,~-]*", str(path), re.ASCII):
        return f"{driver}:///{path}"
    from sqlalchemy import URL  # half a second, for few paths

    # With its driver named, MLflow does not take an escaped path for a folder's and make it.
    named = "sqlite+pysqlite" if driver == "sqlite" else driver
    return URL.create(named, database=str(path)).render_as_string(hide_password=False)


def take_lock(
    path: Path, *, wait_s: float = math.inf, give_up: Callable[[], bool] | None = None
) -> AbstractContextManager[object]:
    """Take a lock file's lock; the block given with the result holds it. A dead holder's is free at once.

    wait_s: how long to wait for another holder. give_up: asked ten times a second; True ends the wait. Both end in BlockingIOError.
    The file goes with the lock: whoever waits for a file that is gone sees that it has no name left, and makes a new one.
    """
    held = ExitStack()
    try:
        # Without a fallback: another kind of lock would outlive its process.
        held.enter_context(
            FileLock(path, fallback_to_soft=False).acquire(timeout=wait_s, poll_interval=0.1, cancel_check=give_up)
        )
    except Timeout as error:
        raise BlockingIOError(errno.EAGAIN, "held by another process", str(path)) from error
    held.callback(_remove, path)
    return held


def _remove(path: Path) -> None:
    """Remove a lock file while its lock is held; where that cannot be done, it stays."""
    with suppress(OSError):
        path.unlink()


def is_locked(path: Path) -> bool:
    """Whether somebody holds a lock file's lock now. A file that nobody holds is removed."""
    if not path.exists():
        return False
    try:
        with take_lock(path, wait_s=0):
            return False
    except BlockingIOError:
        return True


def is_disk_error(error: BaseException) -> bool:
    """Whether an error is the disk's or a folder's: full, failing, closed to this user, or a file where a folder should be.

    safetensors tells it in words only. What may as well concern a process or a socket counts where it names a file.
    """
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS or (error.errno in _FOLDER_ERRORS and error.filename is not None)
    return type(error).__name__ == "SafetensorError" and _code_in_words(error) is not None


def _code_in_words(error: BaseException) -> int | None:
    return next((code for code in (*_DISK_ERRORS, *_FOLDER_ERRORS) if f"os error {code})" in str(error)), None)


STORE_ELSEWHERE = "point DREAMPOLISH_STORE elsewhere, then resume"
OUTPUTS_ELSEWHERE = "call this in another folder: outputs go to ./outputs"


@contextmanager
def disk_errors_in_one_line(folder: Path, elsewhere: str = STORE_ELSEWHERE) -> Iterator[None]:
    """Turn disk and folder errors into a StageError that names the path, and the folder that matters or the space left.

    folder: where the error names none. elsewhere: how a user takes another place.
    """
    try:
        yield
    except Exception as error:
        if not is_disk_error(error):
            raise
        raise disk_error(error, folder, elsewhere) from error


def disk_error(error: BaseException, folder: Path, elsewhere: str = STORE_ELSEWHERE) -> StageError:
    """A disk or folder error in the words of `disk_errors_in_one_line`."""
    where = Path(getattr(error, "filename", None) or folder)
    code = getattr(error, "errno", None) or _code_in_words(error)
    reason = getattr(error, "strerror", None) or str(error)
    if code in _CLOSED:
        closed = _nearest(where)
        return StageError(f"cannot use {where}: {reason}", None, f"let your user read and write {closed}, or {elsewhere}")
    if code in _FOLDER_ERRORS:
        blocking = _nearest(where)
        kind = "a folder, and a file belongs there" if code == errno.EISDIR else "no folder"
        return StageError(f"cannot write {where}: {blocking} is {kind}", None, f"move it away, or {elsewhere}")
    verb = "read or write" if code == errno.EIO else "write"
    return StageError(f"cannot {verb} {where}: {reason}, {free_space(folder)} free", None, f"make room or {elsewhere}")


def try_folder(folder: Path, elsewhere: str) -> None:
    """Make a folder and write in it for a moment, before work begins whose result is to go there. Raises StageError in one line."""
    with disk_errors_in_one_line(folder, elsewhere):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))


def _nearest(path: Path) -> Path:
    """A path, or the nearest of the folders above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def modified_at(path: Path) -> float | None:
    """When a path was last changed, seconds since 1970; None where it was removed meanwhile, as others may at any time."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """Those that are still there, the one changed last first."""
    times = {path: modified_at(path) for path in paths}
    there = {path: time for path, time in times.items() if time is not None}
    return sorted(there, key=lambda path: there[path], reverse=True)


def free_space(folder: Path) -> str:
    """Free space of the disk that holds a folder, in words."""
    return f"{shutil.disk_usage(_nearest(folder.absolute())).free / 2**20:,.0f} MiB"
