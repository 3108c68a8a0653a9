"""Answers that take seconds to find, noted in the user's cache folder as small JSON files for the next process."""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dreampolish.kernels.cache import cache_folder
from dreampolish.optim.atomic_files import write_atomically

KEPT = 64
"""Notes of a kind that stay when a new one is written, the newest ones."""


@dataclass(frozen=True)
class Note:
    """Where an answer is noted. kind: folder of the notes. asked: all that the answer depends on, as JSON."""

    kind: str
    asked: list[Any]

    @cached_property
    def path(self) -> Path:
        """The file, named by a digest of what was asked."""
        return cache_folder() / self.kind / f"{hashlib.sha256(json.dumps(self.asked).encode()).hexdigest()[:32]}.json"

    def read(self) -> Any:
        """The answer as JSON; None where there is none, or none that can be read."""
        try:
            return json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None

    def write(self, answer: Any) -> None:
        """Note an answer, and remove the oldest. A cache that cannot be written costs time alone."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(answer).encode(), mode=0o600)
            for old in sorted(self.path.parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
                old.unlink(missing_ok=True)
