"""The store of a process: a folder of this machine, or, in front of a store that machines share, such a folder as its cache.

DREAMPOLISH_STORE names the shared one by its URL (s3://bucket/folder, file:///net/folder); DREAMPOLISH_STORE_CACHE the folder here.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from dreampolish.optim.costs import CostedCheckpoints
from schemas.artifacts import Artifact, artifact_class_of
from schemas.stores import StoreSettings, read_settings
from stages.runtime.files import disk_errors_in_one_line, shared_url
from stages.runtime.shared.checkpoints import SharedCheckpoints
from stages.runtime.shared.lease import Lease, leased
from stages.runtime.shared.remote import Remote, remote_at
from stages.runtime.shared.results import (
    discard_result,
    fetch_file,
    fetch_result,
    fetching,
    file_name,
    has_result,
    send_file,
    send_result,
)
from stages.runtime.signals import StoppedError
from stages.runtime.store import DamagedArtifactError, LocalStore

A = TypeVar("A", bound=Artifact)


def store_at(root: Path) -> LocalStore:
    """The store in a folder, which is the shared store's cache where this process has one."""
    remote = shared_remote()
    return LocalStore(root) if remote is None else SharedStore(root, remote, read_settings(root))


def shared_remote() -> Remote | None:
    """The shared store of this process; None where its store is a folder of this machine. Raises StageError where it is away."""
    url = shared_url()
    return None if url is None else _remote(url)


@cache
def _remote(url: str) -> Remote:
    return remote_at(url)


class SharedStore(LocalStore):
    """A shared store with its cache on this machine: everything is read here, and published here and then there."""

    def __init__(self, root: Path, remote: Remote, settings: StoreSettings) -> None:
        super().__init__(root)
        self.remote, self.settings = remote, settings
        self._here = LocalStore(root)
        self._leases: dict[tuple[str, str], Lease] = {}

    def has(self, stage: str, fingerprint: str) -> bool:
        """Whether an artifact is published here or there."""
        return self._here.has(stage, fingerprint) or has_result(self.remote, stage, fingerprint)

    def manifest(self, stage: str, fingerprint: str, artifact_class: type[A]) -> A:
        """As LocalStore; what is only there is brought here first."""
        if not self._here.has(stage, fingerprint):
            fetch_result(self.remote, self._here, key=fingerprint, artifact_class=artifact_class)
        return self._here.manifest(stage, fingerprint, artifact_class)

    def open(self, stage: str, fingerprint: str, artifact_class: type[A]) -> A:
        """As LocalStore; where the copy here is damaged and the shared one may be whole, that is taken."""
        try:
            return super().open(stage, fingerprint, artifact_class)
        except DamagedArtifactError:
            if not (self._here.has(stage, fingerprint) and has_result(self.remote, stage, fingerprint)):
                raise
            self._here.discard(stage, fingerprint)
            return super().open(stage, fingerprint, artifact_class)

    def publish(self, work: Path, artifact: A) -> A:
        """As LocalStore, here and then there. Where another machine was first, its result counts."""
        stage, key = artifact.stage, artifact.fingerprint
        with disk_errors_in_one_line(self.root):
            if not has_result(self.remote, stage, key):
                with fetching(self._here, stage, key):
                    mine = self._here.publish(work, artifact)
                if self.share(mine):
                    return mine
                self._here.discard(stage, key)
            shutil.rmtree(work, ignore_errors=True)
            return self.open(stage, key, type(artifact))

    def share(self, artifact: Artifact) -> bool:
        """Publish a result there that is here; False where there was one."""
        return send_result(self.remote, self._here, artifact)

    def discard_damaged(self, stage: str, fingerprint: str) -> None:
        """Also the shared one, where it is damaged: its manifest, and files that are not what their hashes say."""
        super().discard_damaged(stage, fingerprint)
        if not has_result(self.remote, stage, fingerprint):
            return
        try:
            fetch_result(self.remote, self._here, key=fingerprint, artifact_class=artifact_class_of(stage))
        except (DamagedArtifactError, KeyError):
            discard_result(self.remote, self._here, fingerprint, artifact_class_of(stage))

    @contextmanager
    def lock(self, stage: str, fingerprint: str, give_up: Callable[[], bool]) -> Iterator[None]:
        """Hold the right to compute one artifact, among the processes here and the machines. One that is there needs no lease."""

        def needless() -> bool:
            return stage != "run" and has_result(self.remote, stage, fingerprint)

        with super().lock(stage, fingerprint, give_up):
            if needless():
                yield
                return
            name, seconds = f"{stage}-{fingerprint}", self.settings.lease_s
            with ExitStack() as held:
                try:
                    lease = held.enter_context(leased(self.remote, name, lease_s=seconds, needless=needless, give_up=give_up))
                except BlockingIOError as error:
                    raise StoppedError(f"stopped while another machine computes {stage} ({error})") from None
                if lease is not None:
                    self._leases[stage, fingerprint] = lease
                    held.callback(self._leases.pop, (stage, fingerprint), None)
                yield

    def checkpoints(
        self, stage: str, fingerprint: str, *, interval: int, journal: Path, urgent: Callable[[], bool]
    ) -> CostedCheckpoints:
        """Checkpoints that another machine can go on from."""
        return SharedCheckpoints(
            self.root / "checkpoints" / f"{stage}-{fingerprint}",
            interval=interval,
            keep=2,
            remote=self.remote,
            interval_s=self.settings.checkpoint_s,
            journal=journal,
            urgent=urgent,
            barred=lambda: self.is_lost(stage, fingerprint),
        )

    def is_lost(self, stage: str, fingerprint: str) -> bool:
        """Whether another machine has taken over what is computed here."""
        lease = self._leases.get((stage, fingerprint))
        return lease is not None and lease.lost


def share_input(store: Path, digest: str) -> None:
    """Send a user's picture or mesh to the shared store, if there is one."""
    remote, path = shared_remote(), store / "inputs" / digest
    if remote is not None and path.is_file() and not remote.exists(file_name(digest)):
        send_file(remote, path, digest)


def bring_input(store: Path, digest: str) -> None:
    """Bring a user's picture or mesh from the shared store, if there is one and it has it."""
    remote, path = shared_remote(), store / "inputs" / digest
    if remote is not None and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{digest}.partial")
        with suppress(DamagedArtifactError):
            fetch_file(remote, digest, partial)
            partial.replace(path)
