"""Licences and sources of weights and data, out of sources.yaml, and one hash over the files of an entry."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = PROJECT / "supply" / "sources.yaml"
FOLDERS = ("priors", "benchmark")
HEAVY = (".safetensors", ".xz", ".glb")
"""Files that an entry's hash is over; where it has none of them, over all of it."""


def entries() -> list[Mapping[str, Any]]:
    """The entries in order."""
    return list(yaml.safe_load(SOURCES.read_text()))


def entry_of(path: Path) -> Mapping[str, Any] | None:
    """The first entry that names a file, given relative to the project; None where none does."""
    return next((entry for entry in entries() for pattern in entry["files"] if path.match(pattern)), None)


def files_of(entry: Mapping[str, Any]) -> Iterator[Path]:
    """An entry's files, sorted by path."""
    yield from sorted({path for pattern in entry["files"] for path in PROJECT.glob(pattern) if path.is_file()})


def digest_of(entry: Mapping[str, Any]) -> str:
    """SHA-256 over the hashes and paths of an entry's files, as `sha256sum` prints them."""
    every = list(files_of(entry))
    chosen = [path for path in every if path.suffix in HEAVY] or every
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(PROJECT).as_posix()}\n" for path in chosen]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
