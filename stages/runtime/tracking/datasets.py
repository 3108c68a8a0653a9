"""What a run read, as MLflow's datasets: name, digest, where it lies, and how much it is. The data itself is not copied."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreampolish.optim.atomic_files import sha256_of

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

DIGEST_LENGTH = 32
"""Hexadecimal digits of a SHA-256 that MLflow has room for."""


@dataclass(frozen=True)
class ReadData:
    """A dataset. context: what it was for, as `held out`. digest: SHA-256. source: relative to the project. profile: counts."""

    name: str
    context: str
    digest: str
    source: str
    profile: Mapping[str, int]


def split_data(file: Path, source: str, context: str) -> ReadData:
    """The split of the furniture: how many things are in each of its lists. file: JSON, a list a part."""
    parts = json.loads(file.read_bytes())
    profile = {str(name): len(listed) for name, listed in parts.items() if isinstance(listed, list | dict)}
    return ReadData(name="split", context=context, digest=sha256_of(file), source=source, profile=profile)


def files_data(name: str, files: Iterable[Path], source: str, context: str) -> ReadData:
    """A dataset of files, told apart by their names and contents."""
    found = {path.relative_to(path.parents[1]).as_posix(): sha256_of(path) for path in files}
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return ReadData(name=name, context=context, digest=digest, source=source, profile={"files": len(found)})


def entry_of(data: ReadData) -> dict[str, Any]:
    """A dataset as a journal keeps it."""
    return asdict(data)


def inputs_of(entries: Sequence[Mapping[str, Any]]) -> "list[DatasetInput]":
    """The datasets among a journal's entries, as MLflow takes them; sent twice, it keeps one."""
    return [_input(entry["dataset"]) for entry in entries if "dataset" in entry]


def _input(noted: Mapping[str, Any]) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag  # not before the journal has set what mlflow reads at import

    dataset = Dataset(
        name=noted["name"],
        digest=noted["digest"][:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": noted["source"]}),
        profile=json.dumps({**noted["profile"], "sha256": noted["digest"]}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", noted["context"])])
