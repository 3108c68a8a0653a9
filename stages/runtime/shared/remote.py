"""A place that several machines reach: a folder (of a network, or a disk), or whatever fsspec knows, such as a bucket of S3.

Objects have names with slashes. Each is written whole or not at all, and `create` lets one writer win: by a hard link in a folder, by
If-None-Match in S3. Where a file system offers neither, fsspec looks first and then writes; two writers at one moment can then both
believe that they were first. Credentials and endpoints are the file system's own: AWS_ENDPOINT_URL, AWS_PROFILE and so on.
"""

import os
import secrets
import shutil
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dreampolish.optim.atomic_files import sync_file, sync_folder, write_atomically
from stages.runtime.errors import StageError

T = TypeVar("T")

PATIENCE_S = 180.0
"""For a place that does not answer, in the midst of work; what waits loses nothing."""
FIRST_S = 10.0
"""For the very first answer at a terminal: a wrong address should be told soon. A deployed run was given an address that worked."""
DEPLOYED_RUN = "PREFECT__FLOW_RUN_ID"
"""Environment variable that Prefect's workers set for the process of a run."""
PAUSE_S = 1.0
FINAL = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, NotImplementedError)
"""Answers; every other error may pass."""


class Remote(ABC):
    """The place at a URL."""

    url: str

    @abstractmethod
    def read(self, name: str) -> bytes:
        """An object's content. Raises FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, name: str, payload: bytes) -> None:
        """Make an object, or replace it."""

    @abstractmethod
    def create(self, name: str, payload: bytes) -> bool:
        """Make an object; False where there is one already, which stays as it is."""

    @abstractmethod
    def upload(self, source: Path, name: str) -> None:
        """Make an object of a file's content."""

    @abstractmethod
    def download(self, name: str, target: Path) -> None:
        """Write an object's content to a file. Raises FileNotFoundError where there is none."""

    @abstractmethod
    def age_s(self, name: str) -> float | None:
        """Seconds since an object was written, by this machine's clock; None where there is none."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Names of the objects and folders directly in a folder, sorted and without it; none where it is not there."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object, or a folder with all in it; nothing where there is none."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of that name."""
        return self.age_s(name) is not None


def remote_at(url: str) -> Remote:
    """The place at a URL, or in a folder. Raises StageError, in one line, where it cannot be reached."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return FolderRemote(Path(url))
    return FolderRemote(Path(f"/{rest.lstrip('/')}")) if scheme in ("file", "local") else ObjectRemote(url)


class FolderRemote(Remote):
    """A folder that several machines mount, or a disk. Folders are made 0700, files 0600."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.url = str(self.root)

    def read(self, name: str) -> bytes:
        """As Remote says."""
        return (self.root / name).read_bytes()

    def write(self, name: str, payload: bytes) -> None:
        """As Remote says."""
        write_atomically(self._made(name), payload, 0o600)

    def create(self, name: str, payload: bytes) -> bool:
        """As Remote says."""
        path = self._made(name)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        write_atomically(partial, payload, 0o600)
        try:
            # One name for what is written already: either all of it is there or the other's is.
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
        return True

    def upload(self, source: Path, name: str) -> None:
        """As Remote says."""
        path = self._made(name)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            shutil.copyfile(source, partial)
            partial.chmod(0o600)
            sync_file(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)

    def download(self, name: str, target: Path) -> None:
        """As Remote says."""
        shutil.copyfile(self.root / name, target)

    def age_s(self, name: str) -> float | None:
        """As Remote says."""
        try:
            found = (self.root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return max(time.time() - found.st_mtime, 0.0) if stat.S_ISREG(found.st_mode) else None

    def names(self, folder: str) -> list[str]:
        """As Remote says."""
        try:
            return sorted(name for name in os.listdir(self.root / folder) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        """As Remote says."""
        path = self.root / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _made(self, name: str) -> Path:
        """The path of an object, whose folder is there now."""
        path = self.root / name
        for folder in reversed([path.parent, *(each for each in path.parent.parents if each.is_relative_to(self.root))]):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


class ObjectRemote(Remote):
    """A bucket, or another place that fsspec knows. patience_s: for one that does not answer; then StageError."""

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _file_system(url)
        self._patience_s = patience_s if DEPLOYED_RUN in os.environ else FIRST_S
        self.names("")
        self._patience_s = patience_s

    def read(self, name: str) -> bytes:
        """As Remote says."""
        return bytes(self._patiently(lambda: self._files.cat_file(self._path(name))))

    def write(self, name: str, payload: bytes) -> None:
        """As Remote says."""
        self._patiently(lambda: self._files.pipe_file(self._path(name), payload))

    def create(self, name: str, payload: bytes) -> bool:
        """As Remote says."""
        tried = 0

        def once() -> bool:
            nonlocal tried
            tried += 1
            try:
                self._files.pipe_file(self._path(name), payload, mode="create")
            except FileExistsError:
                # Of an attempt whose answer was lost, the object is our own.
                return tried > 1 and self._files.cat_file(self._path(name)) == payload
            return True

        return self._patiently(once)

    def upload(self, source: Path, name: str) -> None:
        """As Remote says."""
        self._patiently(lambda: self._files.put_file(str(source), self._path(name)))

    def download(self, name: str, target: Path) -> None:
        """As Remote says."""
        self._patiently(lambda: self._files.get_file(self._path(name), str(target)))

    def age_s(self, name: str) -> float | None:
        """As Remote says."""
        try:
            info = self._patiently(lambda: self._files.info(self._path(name)))
        except FileNotFoundError:
            return None
        if info["type"] != "file":
            return None
        written = info.get("LastModified") or info.get("mtime") or info.get("created")
        if written is None:
            return 0.0
        return max(time.time() - (written if isinstance(written, int | float) else written.timestamp()), 0.0)

    def names(self, folder: str) -> list[str]:
        """As Remote says."""
        path = self._path(folder).rstrip("/")
        try:
            found = self._patiently(lambda: self._files.ls(path, detail=False))
        except FileNotFoundError:
            return []
        inside = [str(each).rstrip("/").rpartition("/")[2] for each in found if str(each).rstrip("/") != path]
        return sorted(name for name in inside if name)

    def remove(self, name: str) -> None:
        """As Remote says."""

        def away() -> None:
            try:
                self._files.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return

        self._patiently(away)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do it, again while the place does not answer."""
        until = time.monotonic() + self._patience_s
        for pause in _pauses():
            try:
                return work()
            except PermissionError as error:
                remedy = "look at its credentials, and at what they may do there"
                raise StageError(
                    f"the store at {self.url} refuses: {' '.join(str(error).split())[:200]}", None, remedy
                ) from error
            except FINAL:
                raise
            except Exception as error:
                # Each file system has its own words for the same trouble.
                if time.monotonic() + pause > until or type(error).__name__ in ("NoCredentialsError", "ParamValidationError"):
                    words = " ".join(str(error).split())[:200] or type(error).__name__
                    remedy = "look at its address and credentials, then the same command goes on"
                    raise StageError(f"the store at {self.url} does not answer: {words}", None, remedy) from error
                time.sleep(pause)
        raise AssertionError("pauses never end")


def _pauses() -> Iterator[float]:
    pause = PAUSE_S
    while True:
        yield pause
        pause = min(2 * pause, 10.0)


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path there."""
    from fsspec.core import url_to_fs

    # What another machine has written a moment ago must be seen: nothing is remembered.
    try:
        files, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        raise StageError(f"{url} cannot be opened: {error}", None, "pip install 'dreampolish[s3]' for s3://") from None
    except ValueError as error:
        raise StageError(f"{url} is no address of a store: {error}", None, "as in s3://bucket/folder") from None
    return files, str(root).rstrip("/")
