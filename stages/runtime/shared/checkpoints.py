"""Checkpoints that reach the shared store at an interval, so that another machine goes on from the newest of them.

`checkpoints/<stage>-<key>` there is a sealed list of files with their hashes, replaced last; the files lie beside it, in a folder of
that name with `.files`. A stage's journal goes along: its figures of before are not journalled again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.optim.costs import CostedCheckpoints
from stages.runtime.errors import StageError
from stages.runtime.shared.remote import Remote
from stages.runtime.shared.results import checked_digest, sealed, unsealed
from stages.runtime.store import DamagedArtifactError

JOURNAL = "journal"


class SharedCheckpoints(CostedCheckpoints):
    """Checkpoints of one computation, here and in the shared store.

    interval_s: between two that are sent. journal: the stage's. urgent: whether the process is about to end; then each goes at once.
    barred: whether another machine has taken this computation over, whose checkpoints count then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        interval: int,
        keep: int,
        remote: Remote,
        interval_s: float,
        journal: Path,
        urgent: Callable[[], bool],
        barred: Callable[[], bool],
    ) -> None:
        super().__init__(folder, interval=interval, keep=keep)
        self._remote, self._interval_s, self._journal = remote, interval_s, journal
        self._name = f"checkpoints/{folder.name}"
        self._sent_at = time.monotonic()
        self._looked = self._there = False
        self._urgent, self._barred = urgent, barred

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """As CostedCheckpoints; the shared store gets it when it is due there. Where it does not answer, the next one goes."""
        super().save(step, state)
        if (self._urgent() or time.monotonic() - self._sent_at >= self._interval_s) and not self._barred():
            try:
                self._send(step)
            except (StageError, OSError):
                return
            self._sent_at = time.monotonic()

    def _send(self, step: int) -> None:
        files = {path.name: path for path in self.folder.iterdir() if path.stem in (f"step-{step:08d}", "costs")}
        if self._journal.is_file():
            files[JOURNAL] = self._journal
        listed = {}
        for name, path in files.items():
            content = path.read_bytes()
            listed[name] = hashlib.sha256(content).hexdigest()
            self._remote.write(f"{self._name}.files/{listed[name]}", content)
        self._remote.write(self._name, sealed(json.dumps({"step": step, "files": listed}).encode()))
        self._there = True
        for name in self._remote.names(f"{self._name}.files"):
            if name not in listed.values():
                self._remote.remove(f"{self._name}.files/{name}")

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """As CostedCheckpoints, of what is here and in the shared store, which is looked at once."""
        if not self._looked:
            self._looked = True
            self._take_over()
        return super().latest()

    def _take_over(self) -> None:
        """Bring a checkpoint that is ahead of all that are here; a damaged one is passed over."""
        try:
            noted = json.loads(unsealed(self._remote.read(self._name), self._name))
            step, listed = (
                int(noted["step"]),
                {str(name): checked_digest(str(digest)) for name, digest in noted["files"].items()},
            )
            self._there = True
            mine = max((int(path.stem.partition("-")[2]) for path in self.folder.glob("step-*.json")), default=-1)
            if step <= mine or not {f"step-{step:08d}.json", f"step-{step:08d}.safetensors"} <= listed.keys():
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            # The JSON makes a checkpoint of it, so it comes last.
            for name in sorted(listed, key=lambda each: each.endswith(".json") and each != "costs.json"):
                self._bring(name, listed[name], step)
        except (FileNotFoundError, DamagedArtifactError, ValueError, KeyError, TypeError, AttributeError):
            return

    def _bring(self, name: str, digest: str, step: int) -> None:
        known = (f"step-{step:08d}.json", f"step-{step:08d}.safetensors", "costs.json", JOURNAL)
        if name not in known:
            raise DamagedArtifactError(f"{name[:80]!r} is no file of a checkpoint")
        content = self._remote.read(f"{self._name}.files/{digest}")
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedArtifactError(f"{self._name}: {name} is not what its hash says")
        target = self._journal if name == JOURNAL else self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name != JOURNAL or not target.is_file() or content.startswith(target.read_bytes()):
            write_atomically(target, content)

    def clear(self) -> None:
        """As CostedCheckpoints, here and there."""
        super().clear()
        if self._there and not self._barred():
            self._there = False
            try:
                self._remote.remove(self._name)
                self._remote.remove(f"{self._name}.files")
            except (StageError, OSError):
                return
