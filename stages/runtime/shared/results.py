"""Results in a place that several machines reach.

`files/<aa>/<hash>` holds files by the SHA-256 of their content, `results/<stage>/<key>` the manifest of a result, which is made last and
once: the first publisher wins. A manifest's first line is its own SHA-256. A file of that name is whole and has that content, so that an
interrupted transfer goes on where it stopped, and whoever takes a file compares it with its name.
"""

import hashlib
import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from dreampolish.optim.atomic_files import sha256_of
from schemas.artifacts import Artifact, stage_of
from stages.runtime.files import take_lock
from stages.runtime.shared.remote import Remote
from stages.runtime.store import MANIFEST, DamagedArtifactError, LocalStore, file_refs

A = TypeVar("A", bound=Artifact)

FRESH_S = 6 * 3600.0
"""A file that nobody names yet may be taken for granted only while a collection would not remove it; an older one is sent again."""
DIGEST = re.compile(r"[0-9a-f]{64}")


def file_name(digest: str) -> str:
    """The object of a file with this SHA-256."""
    return f"files/{checked_digest(digest)[:2]}/{digest}"


def result_name(stage: str, key: str) -> str:
    """The object of a result's manifest."""
    return f"results/{stage}/{checked_digest(key)}"


def checked_digest(digest: str) -> str:
    """A SHA-256 in hexadecimal. Raises DamagedArtifactError for anything else, such as a path."""
    if DIGEST.fullmatch(digest) is None:
        raise DamagedArtifactError(f"{digest[:80]!r} is no SHA-256")
    return digest


def sealed(content: bytes) -> bytes:
    """Content behind its own SHA-256."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def unsealed(payload: bytes, name: str) -> bytes:
    """What `sealed` was given. Raises DamagedArtifactError where the hash is missing or does not fit."""
    seal, _, content = payload.partition(b"\n")
    if seal != hashlib.sha256(content).hexdigest().encode():
        raise DamagedArtifactError(f"{name} has no hash, or differs from what was published")
    return content


def send_file(remote: Remote, source: Path, digest: str) -> bool:
    """Send a file; False where it is there already. Raises DamagedArtifactError where it is not what its hash says."""
    age = remote.age_s(file_name(digest))
    if age is not None and age < FRESH_S:
        return False
    if sha256_of(source) != digest:
        raise DamagedArtifactError(f"{source} differs from what was published")
    remote.upload(source, file_name(digest))
    return True


def fetch_file(remote: Remote, digest: str, target: Path) -> None:
    """Fetch a file, unless the target is it already. Raises DamagedArtifactError where it is missing or is not what its hash says."""
    if target.is_file() and not target.is_symlink() and sha256_of(target) == digest:
        return
    try:
        remote.download(file_name(digest), target)
    except FileNotFoundError:
        raise DamagedArtifactError(f"{file_name(digest)} is missing in {remote.url}") from None
    if sha256_of(target) != digest:
        target.unlink()
        raise DamagedArtifactError(f"{file_name(digest)} in {remote.url} is not what its hash says")


def discard_result(remote: Remote, local: LocalStore, key: str, artifact_class: type[Artifact]) -> None:
    """Remove a result that was found to be damaged there: its manifest, then those of its files that are not what their names say."""
    name = result_name(stage_of(artifact_class), key)
    try:
        references = file_refs(artifact_class.model_validate_json(unsealed(remote.read(name), name)))
    except (FileNotFoundError, ValueError, DamagedArtifactError):
        references = []
    remote.remove(name)
    (local.root / "work").mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=local.root / "work", suffix=f"-{os.getpid()}") as folder:
        for number, reference in enumerate(references):
            try:
                fetch_file(remote, reference.sha256, Path(folder) / str(number))
            except DamagedArtifactError:
                remote.remove(file_name(reference.sha256))


def has_result(remote: Remote, stage: str, key: str) -> bool:
    """Whether a result is published there."""
    return remote.exists(result_name(stage, key))


def send_result(remote: Remote, local: LocalStore, artifact: Artifact) -> bool:
    """Publish a local result there, manifest last; False where there is one, which stays. Raises DamagedArtifactError, and then nothing
    is published, where a local file is damaged."""
    name = result_name(artifact.stage, artifact.fingerprint)
    if remote.exists(name):
        return False
    folder = local.folder(artifact.stage, artifact.fingerprint)
    manifest = (folder / MANIFEST).read_bytes()
    for reference in file_refs(artifact):
        send_file(remote, folder / reference.path, reference.sha256)
    return remote.create(name, sealed(manifest))


def fetch_result(remote: Remote, local: LocalStore, key: str, artifact_class: type[A]) -> A:
    """Bring a result into the local store, verified, its manifest last; one that is there already stays.

    Raises KeyError where there is none, DamagedArtifactError where what is there is not what was published.
    """
    stage = stage_of(artifact_class)
    name = result_name(stage, key)
    if local.has(stage, key):
        return local.open(stage, key, artifact_class)
    try:
        manifest = unsealed(remote.read(name), name)
    except FileNotFoundError:
        raise KeyError(f"{name} is not in {remote.url}") from None
    try:
        artifact = artifact_class.model_validate_json(manifest)
    except ValueError:
        raise DamagedArtifactError(f"{name} in {remote.url} cannot be read") from None
    if artifact.stage != stage or artifact.fingerprint != key:
        raise DamagedArtifactError(f"{name} in {remote.url} belongs to {artifact.stage}/{artifact.fingerprint[:12]}")
    with fetching(local, stage, key):
        if not local.has(stage, key):
            work = _fetched(remote, local, artifact)
            local.install(work, artifact, manifest)
        return local.open(stage, key, artifact_class)


def fetching(local: LocalStore, stage: str, key: str) -> AbstractContextManager[object]:
    """Hold the right to bring a result into a local store; readers bring what they need without the right to compute it."""
    locks = local.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return take_lock(locks / f"fetch-{stage}-{key}")


def _fetched(remote: Remote, local: LocalStore, artifact: Artifact) -> Path:
    """A work folder with all files of a result; what an interrupted attempt has fetched is taken over."""
    base = local.root / "work"
    base.mkdir(parents=True, exist_ok=True)
    stem = f"fetch-{artifact.stage}-{artifact.fingerprint}"
    work, *others = [base / f"{stem}-{os.getpid()}", *(path for path in base.glob(f"{stem}-*"))]
    for old in others:
        if work.exists() and old != work:
            shutil.rmtree(old, ignore_errors=True)
        elif old != work:
            old.rename(work)
    work.mkdir(exist_ok=True)
    for reference in file_refs(artifact):
        target = work / reference.path
        target.parent.mkdir(parents=True, exist_ok=True)
        fetch_file(remote, reference.sha256, target)
    return work
