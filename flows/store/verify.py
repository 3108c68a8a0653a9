"""Whether published results are what was published: sizes and manifests of all, hashes of a sample or of all."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.artifacts import Artifact, artifact_class_of
from schemas.runs import ALL_STAGES
from stages.runtime.store import MANIFEST, DamagedArtifactError, LocalStore, file_refs

PLACES = (*ALL_STAGES, "scores")
"""Folders of a store that hold results."""
SAMPLE = 100
SAMPLE_BYTES = 256 * 2**20
"""Of files that a look by sample reads: less than a second of hashing."""


@dataclass(frozen=True)
class Problem:
    """A result's folder and what is wrong with it. unfinished: it has no manifest, so that nobody takes it for a result."""

    folder: Path
    what: str
    unfinished: bool = False


@dataclass(frozen=True)
class Checked:
    """What was looked at. results: all there are; hashed: those whose files were read and compared with their hashes."""

    results: int
    hashed: int
    problems: tuple[Problem, ...]


def result_folders(store: Path) -> Iterator[Path]:
    """The folders of results, finished or not, by stage and key."""
    for name in PLACES:
        yield from sorted(path for path in (store / name).glob("*") if not path.name.startswith("."))


def check_results(store: Path, *, deep: bool) -> Checked:
    """Compare manifests with their hashes and files with their sizes; and files with their hashes, of all results or of a random sample."""
    local, problems, whole = LocalStore(store), list[Problem](), list[Artifact]()
    results = 0
    for folder in result_folders(store):
        if not (folder / MANIFEST).is_file():
            problems.append(Problem(folder, f"{folder} was never finished", unfinished=True))
            continue
        results += 1
        try:
            artifact = local.manifest(folder.parent.name, folder.name, artifact_class_of(folder.parent.name))
            local.verify(artifact, hashes=False)
            whole.append(artifact)
        except DamagedArtifactError as error:
            problems.append(Problem(folder, str(error)))
        except KeyError:
            continue  # removed meanwhile
    read = whole if deep else _sample(whole)
    for artifact in read:
        try:
            local.verify(artifact)
        except DamagedArtifactError as error:
            problems.append(Problem(local.folder(artifact.stage, artifact.fingerprint), str(error)))
    return Checked(results, len(read), tuple(sorted(problems, key=lambda each: str(each.folder))))


def _sample(artifacts: list[Artifact]) -> list[Artifact]:
    """Others each time, so that many looks see all."""
    chosen, left = list[Artifact](), SAMPLE_BYTES
    for artifact in random.sample(artifacts, min(SAMPLE, len(artifacts))):
        left -= sum(reference.bytes for reference in file_refs(artifact))
        if left < 0 and chosen:
            break
        chosen.append(artifact)
    return chosen
