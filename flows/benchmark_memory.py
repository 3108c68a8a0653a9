"""Measurements that were made already, in the store: a benchmark that was cut off goes on, and a repeated one measures what is new."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.disk import write_atomically
from stages.fingerprint import PROJECT, code_digest

LIBRARIES = ("torch", "numpy", "scipy", "trimesh", "embreex", "pillow", "scikit-image")
"""What figures and pictures are computed with: a new version measures anew."""


def memory_path(store: Path, module: str, measured: Mapping[str, Any]) -> Path:
    """Where a measurement's figures lie or would lie.

    module: what measures; its code and that of all it imports count. measured: JSON values that say what is measured.
    """
    versions = {name: version(name) for name in LIBRARIES}
    known = json.dumps(
        {**measured, "code": code_digest(module, PROJECT), "module": module, "versions": versions}, sort_keys=True
    )
    return store / "measured" / f"{hashlib.sha256(known.encode()).hexdigest()}.json"


def recalled(path: Path) -> dict[str, Any] | None:
    """The figures of an earlier measurement; None where there are none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remember(path: Path, figures: Mapping[str, Any]) -> None:
    """Keep a measurement's figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(figures).encode())
