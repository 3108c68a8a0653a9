"""Where a run is cut off: hooks that are laid, in a forked child only, around the steps of one stage."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dreampolish.optim.checkpoints
import stages.runtime.stage
import stages.runtime.store
from dreampolish.optim.atomic_files import partial_path
from schemas.artifacts import StageName
from schemas.runs import STAGES
from stages.runtime.stage import Stage
from stages.runtime.store import MANIFEST

MOMENTS = ("early", "write", "rename", "manifest", "published")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
FIRED = "fired"
"""File in the folder of a cut-off run: it got to the moment."""
WITHOUT_FIT: tuple[StageName, ...] = ("reference", "export")
"""Stages without checkpoints: `early` is before their first file, `write` half-way through one."""
WORDS = {
    "early": "before the first checkpoint",
    "write": "inside a checkpoint's write",
    "rename": "before the rename",
    "manifest": "before the manifest",
    "published": "after publishing",
}


@dataclass(frozen=True)
class Cell:
    """One way to cut a run off."""

    stage: StageName
    moment: str
    signal: str

    @property
    def name(self) -> str:
        """As a folder's name."""
        return f"{self.stage}-{self.moment}-{self.signal}"


def all_cells() -> list[Cell]:
    """Every signal, moment and stage."""
    return [Cell(stage, moment, number) for number in SIGNALS for moment in MOMENTS for stage in STAGES]


def lay_hook(cell: Cell) -> None:
    """Make this process send itself the cell's signal, once, when it gets to the cell's moment; it leaves the mark `FIRED`."""
    fired = False

    def fire() -> None:
        nonlocal fired
        if not fired:
            fired = True
            Path(FIRED).touch()
            os.kill(os.getpid(), getattr(signal, cell.signal))

    lay = {"early": _early, "write": _write, "rename": _rename, "manifest": _manifest, "published": _published}
    lay[cell.moment](cell.stage, fire)


def _before(owner: Any, name: str, meets: Callable[..., bool], fire: Callable[[], None]) -> None:
    """Call `fire` before a function, where its arguments meet a condition."""
    original = getattr(owner, name)

    def hooked(*arguments: Any, **options: Any) -> Any:
        if meets(*arguments):
            fire()
        return original(*arguments, **options)

    setattr(owner, name, hooked)


def _early(stage: StageName, fire: Callable[[], None]) -> None:
    name = "path" if stage in WITHOUT_FIT else "progress"
    _before(Stage, name, lambda self, *_: self.name == stage, fire)


def _write(stage: StageName, fire: Callable[[], None]) -> None:
    """Half a file is on the disk: of a fit's second checkpoint, or of a stage's second file."""
    if stage in WITHOUT_FIT:
        _half_a_file(stage, fire)
        return
    original, seen = dreampolish.optim.checkpoints.write_atomically, 0

    def hooked(path: Path, payload: bytes) -> None:
        nonlocal seen
        if path.suffix == ".safetensors" and path.parent.name.startswith(f"{stage}-"):
            seen += 1
            if seen == 2:
                partial_path(path).write_bytes(payload[: len(payload) // 2])
                fire()
        original(path, payload)

    dreampolish.optim.checkpoints.write_atomically = hooked


def _half_a_file(stage: StageName, fire: Callable[[], None]) -> None:
    original, seen = Stage.path, 0

    def hooked(self: Stage, filename: str) -> Path:
        nonlocal seen
        path = original(self, filename)
        if self.name == stage:
            seen += 1
            if seen == 2:
                path.write_bytes(b"half of what belongs her")
                fire()
        return path

    Stage.path = hooked  # type: ignore[method-assign]


def _rename(stage: StageName, fire: Callable[[], None]) -> None:
    _before(Path, "rename", lambda path, *_: path.parent.name == "work" and path.name.startswith(f"{stage}-"), fire)


def _manifest(stage: StageName, fire: Callable[[], None]) -> None:
    meets = lambda path, *_: path.name == MANIFEST and path.parent.parent.name == stage  # noqa: E731
    _before(stages.runtime.store, "write_atomically", meets, fire)


def _published(stage: StageName, fire: Callable[[], None]) -> None:
    _before(stages.runtime.stage, "record_stage", lambda store, run_id, artifact, *_: artifact.stage == stage, fire)
