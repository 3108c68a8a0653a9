"""Where a worker's runs work and what they find in their environment: `<store>/services/runs.json`, read anew for every run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from dreampolish.optim.atomic_files import write_atomically
from flows.service.processes import services_folder

RUNS = "DREAMPOLISH_RUNS"
"""Environment variable of a worker: that file."""


def runs_path(store: Path) -> Path:
    """Where `up` says it."""
    return services_folder(store) / "runs.json"


def tell_runs(path: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Say where a worker's runs work from now on and what they find in their environment."""
    write_atomically(path, json.dumps({"folder": str(folder), "environment": dict(environment)}).encode(), 0o600)


def told_runs() -> tuple[Path, dict[str, str]]:
    """Folder and environment of a run: what this process's file says, else its own."""
    told = os.environ.get(RUNS)
    if told is None:
        return Path.cwd(), {}
    said = json.loads(Path(told).read_bytes())
    return Path(said["folder"]), {str(name): str(value) for name, value in said["environment"].items()}
