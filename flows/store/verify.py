"""Whether published results are what was published: sizes and manifests of all, hashes of a sample or of all."""

import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.artifacts import artifact_class_of
from schemas.runs import ALL_STAGES
from stages.runtime.store import MANIFEST, MANIFEST_HASH, DamagedArtifactError, LocalStore, hash_line

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
        place = store / name
        yield from (place / each for each in sorted(os.listdir(place) if place.is_dir() else ()) if not each.startswith("."))


def check_results(store: Path, *, deep: bool) -> Checked:
    """Compare manifests with their hashes and files with their sizes; and files with their hashes, of all results or of a random sample."""
    local, problems, whole = LocalStore(store), list[Problem](), list[Path]()
    for folder in result_folders(store):
        if not (folder / MANIFEST).is_file():
            problems.append(Problem(folder, f"{folder} was never finished", unfinished=True))
        elif _looks_whole(folder):
            whole.append(folder)
        else:
            problems += _problem(local, folder, hashes=False)
    read = whole if deep else _sample(whole)
    for folder in read:
        problems += _problem(local, folder, hashes=True)
    seen = {*whole, *(each.folder for each in problems if not each.unfinished)}
    return Checked(len(seen), len(read), tuple(sorted(problems, key=lambda each: str(each.folder))))


def _looks_whole(folder: Path) -> bool:
    """Whether a manifest fits its hash, and its files are there with their sizes, none of them a link. Quick: one listing a folder."""
    try:
        with os.scandir(folder) as listed:
            entries = {entry.name: entry for entry in listed}
        if folder.is_symlink() or any(entry.is_symlink() for entry in entries.values()):
            return False
        manifest = (folder / MANIFEST).read_bytes()
        if (folder / MANIFEST_HASH).read_bytes() != hash_line(manifest):
            return False
        return all(_has_size(folder, entries, reference) for reference in _references(json.loads(manifest)))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _has_size(folder: Path, entries: "Mapping[str, os.DirEntry[str]]", reference: Mapping[str, Any]) -> bool:
    name, size = str(reference["path"]), int(reference["bytes"])
    entry = entries.get(name)
    if entry is not None:
        return entry.is_file() and entry.stat().st_size == size
    deeper = folder / name
    return "/" in name and deeper.is_file() and not deeper.is_symlink() and deeper.stat().st_size == size


def _references(value: Any) -> Iterator[Mapping[str, Any]]:
    """The files that a manifest names."""
    if isinstance(value, dict):
        if {"path", "sha256", "bytes"} <= value.keys():
            yield value
        else:
            for each in value.values():
                yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _problem(local: LocalStore, folder: Path, *, hashes: bool) -> list[Problem]:
    """What is wrong with a result, if anything is; nothing of one that was removed meanwhile."""
    try:
        artifact = local.manifest(folder.parent.name, folder.name, artifact_class_of(folder.parent.name))
        local.verify(artifact, hashes=hashes)
    except DamagedArtifactError as error:
        return [Problem(folder, str(error))]
    except KeyError:
        return []
    return []


def _sample(folders: Sequence[Path]) -> list[Path]:
    """Others each time, so that many looks see all."""
    chosen, left = list[Path](), SAMPLE_BYTES
    for folder in random.sample(folders, min(SAMPLE, len(folders))):
        left -= sum(reference["bytes"] for reference in _references(json.loads((folder / MANIFEST).read_bytes())))
        if left < 0 and chosen:
            break
        chosen.append(folder)
    return chosen
