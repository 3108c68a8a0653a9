"""The one cache: `<store>/<stage>/<fingerprint>/` holds an artifact's files and, written last, its `artifact.json`.

A folder without a manifest is no artifact. Work happens in the store's folder `work`, on the same filesystem, and is renamed into place.
`artifact.sha256` holds the manifest's own hash, so that a flipped bit in a figure is seen too. Published files can be read only, by their
owner alone; one without its hash, or a link in the place of one, is refused.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from dreampolish.optim.atomic_files import sha256_of, sync_file, sync_folder, write_atomically
from schemas.artifacts import Artifact, FileRef
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line, take_lock
from stages.runtime.signals import StoppedError

if TYPE_CHECKING:
    from dreampolish.optim.costs import CostedCheckpoints

A = TypeVar("A", bound=Artifact)

MANIFEST = "artifact.json"
MANIFEST_HASH = "artifact.sha256"
READ_ONLY = 0o400


class DamagedArtifactError(RuntimeError):
    """A stored artifact is not what was published: a file is missing, altered, or the manifest cannot be read."""


class LocalStore:
    """The store: a folder on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def folder(self, stage: str, fingerprint: str) -> Path:
        """Where an artifact's files lie or would lie."""
        return self.root / stage / fingerprint

    def has(self, stage: str, fingerprint: str) -> bool:
        """Whether an artifact is published; says nothing of its wholeness."""
        return (self.folder(stage, fingerprint) / MANIFEST).is_file()

    def open(self, stage: str, fingerprint: str, artifact_class: type[A]) -> A:
        """The artifact, every file verified. Raises KeyError if it is absent, DamagedArtifactError if it is not whole."""
        artifact = self.manifest(stage, fingerprint, artifact_class)
        self.verify(artifact)
        return artifact

    def manifest(self, stage: str, fingerprint: str, artifact_class: type[A]) -> A:
        """The artifact, whose files are not looked at. Raises as `open` does."""
        folder = self.folder(stage, fingerprint)
        if not self.has(stage, fingerprint):
            raise KeyError(f"{stage}/{fingerprint} is not in the store {self.root}")
        try:
            for path in (folder, folder / MANIFEST, folder / MANIFEST_HASH):
                _refuse_link(path)
            content = (folder / MANIFEST).read_bytes()
            if (folder / MANIFEST_HASH).read_bytes() != hash_line(content):
                raise DamagedArtifactError(f"{folder / MANIFEST} differs from what was published")
            artifact = artifact_class.model_validate_json(content)
        except (FileNotFoundError, ValidationError, ValueError) as error:
            # Other disk errors may pass: they are no reason to discard what was published.
            raise DamagedArtifactError(f"{folder / MANIFEST} or its hash cannot be read") from error
        if artifact.stage != stage or artifact.fingerprint != fingerprint:
            raise DamagedArtifactError(f"{folder / MANIFEST} belongs to {artifact.stage}/{artifact.fingerprint[:12]}")
        return artifact

    def verify(self, artifact: Artifact, *, hashes: bool = True) -> None:
        """Compare every file of an artifact with its size and hash. Raises DamagedArtifactError naming the first that differs."""
        folder = self.folder(artifact.stage, artifact.fingerprint)
        for reference in file_refs(artifact):
            path = folder / reference.path
            for part in (path, *path.relative_to(folder).parents):
                _refuse_link(folder / part)
            if not path.is_file():
                raise DamagedArtifactError(f"{path} is missing")
            if path.stat().st_size != reference.bytes or (hashes and sha256_of(path) != reference.sha256):
                raise DamagedArtifactError(f"{path} differs from what was published")

    def check_parents(self, parents: Iterable[Artifact]) -> None:
        """Raises StageError, with the stage to run again, for a parent that is absent or damaged."""
        for parent in parents:
            try:
                self.open(parent.stage, parent.fingerprint, type(parent))
            except (KeyError, DamagedArtifactError) as error:
                remedy = f"run the {parent.stage} stage again: its damaged result is not used"
                raise StageError(str(error.args[0]), None, remedy) from error

    def work_folder(self, stage: str, fingerprint: str) -> Path:
        """A new empty folder on the store's filesystem for one attempt; older attempts' leavings are removed.

        Call it while holding the computation's lock.
        """
        with disk_errors_in_one_line(self.root):
            base = self.root / "work"
            base.mkdir(parents=True, exist_ok=True)
            for old in base.glob(f"{stage}-{fingerprint}-*"):
                shutil.rmtree(old, ignore_errors=True)
            work = base / f"{stage}-{fingerprint}-{os.getpid()}"
            work.mkdir()
            return work

    def publish(self, work: Path, artifact: A) -> A:
        """Sync the work folder's files, rename it into place, write the manifest last. The first publisher wins."""
        with disk_errors_in_one_line(self.root):
            if self.has(artifact.stage, artifact.fingerprint):
                shutil.rmtree(work)
                return self.open(artifact.stage, artifact.fingerprint, type(artifact))
            self.install(work, artifact, artifact.model_dump_json(indent=1).encode())
            return artifact

    def install(self, work: Path, artifact: Artifact, manifest: bytes) -> None:
        """Make a folder of synced files the result that its manifest names; the manifest comes last."""
        final = self.folder(artifact.stage, artifact.fingerprint)
        (work / MANIFEST_HASH).write_bytes(hash_line(manifest))
        _close_tree(work)
        _sync_tree(work)
        final.parent.mkdir(parents=True, exist_ok=True)
        self.discard(artifact.stage, artifact.fingerprint)
        work.rename(final)
        sync_folder(final.parent)
        write_atomically(final / MANIFEST, manifest)
        (final / MANIFEST).chmod(READ_ONLY)

    def discard(self, stage: str, fingerprint: str) -> None:
        """Remove what lies at an artifact's place: a half-published folder or a damaged one. The manifest goes first."""
        folder = self.folder(stage, fingerprint)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def discard_damaged(self, stage: str, fingerprint: str) -> None:
        """Remove an artifact that was found to be damaged, so that it is computed anew. Call it while holding the computation's lock."""
        self.discard(stage, fingerprint)

    def share(self, artifact: Artifact) -> bool:
        """Publish a result where other machines find it; False where nothing is to be done, as in a store of one machine."""
        return False

    def checkpoints(
        self, stage: str, fingerprint: str, *, interval: int, journal: Path, urgent: Callable[[], bool]
    ) -> "CostedCheckpoints":
        """The checkpoints of one computation. journal: the stage's, which goes where they go; urgent: whether the process is to end."""
        from dreampolish.optim.costs import CostedCheckpoints  # torch, which looking through a store does without

        return CostedCheckpoints(self.root / "checkpoints" / f"{stage}-{fingerprint}", interval=interval, keep=2)

    @contextmanager
    def lock(self, stage: str, fingerprint: str, give_up: Callable[[], bool]) -> Iterator[None]:
        """Hold the right to compute one artifact; a dead holder's lock is free at once. give_up: asked while waiting."""
        with disk_errors_in_one_line(self.root):
            folder = self.root / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                held = take_lock(folder / f"{stage}-{fingerprint}", give_up=give_up)
            except BlockingIOError:
                raise StoppedError(f"stopped while another process computes {stage}") from None
        with held:
            yield


def hash_line(manifest: bytes) -> bytes:
    """What `artifact.sha256` holds of a manifest."""
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def file_refs(artifact: Artifact) -> list[FileRef]:
    """Every file an artifact names, in field order."""
    return [reference for value in dict(artifact).values() for reference in _refs_in(value)]


def _refs_in(value: object) -> Iterator[FileRef]:
    if isinstance(value, FileRef):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _refs_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _refs_in(item)


def _refuse_link(path: Path) -> None:
    """Raise DamagedArtifactError where a link stands in the place of what was published."""
    if path.is_symlink():
        raise DamagedArtifactError(f"{path} is a link, not what was published")


def _close_tree(folder: Path) -> None:
    """Files can be read only, and by their owner alone."""
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else READ_ONLY)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)
