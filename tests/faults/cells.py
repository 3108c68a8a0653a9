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
from schemas.artifacts import Artifact, StageName
from schemas.runs import STAGES
from stages.runtime.stage import Stage
from stages.runtime.store import MANIFEST, LocalStore

MOMENTS = ("early", "write", "rename", "manifest", "judging", "scores_rename", "scores_manifest", "published")
SCORES = "scores"
OF_SCORES = ("judging", "scores_rename", "scores_manifest")
"""Moments after the stage's own result is published, while its scores are computed and published."""
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
FIRED = "fired"
"""File in the folder of a cut-off run: it got to the moment."""
WITHOUT_FIT: tuple[StageName, ...] = ("reference", "export")
"""Stages without checkpoints: `early` is before their first file, `write` half-way through one."""
WITHOUT_SCORES: tuple[StageName, ...] = ("reference",)
"""Stages that nothing judges."""
WORDS = {
    "early": "before the first checkpoint",
    "write": "inside a checkpoint's write",
    "rename": "before the rename",
    "manifest": "before the manifest",
    "judging": "inside a file of the scores",
    "scores_rename": "before the scores' rename",
    "scores_manifest": "before the scores' manifest",
    "published": "before the record",
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
    """Every signal, moment and stage that has it."""
    return [Cell(stage, moment, number) for number in SIGNALS for moment in MOMENTS for stage in STAGES if has(stage, moment)]


def has(stage: StageName, moment: str) -> bool:
    """Whether a stage gets to a moment."""
    return stage not in WITHOUT_SCORES or moment not in OF_SCORES


def lay_hook(cell: Cell) -> None:
    """Make this process send itself the cell's signal, once, when it gets to the cell's moment; it leaves the mark `FIRED`."""
    fired = False

    def fire() -> None:
        nonlocal fired
        if not fired:
            fired = True
            Path(FIRED).touch()
            os.kill(os.getpid(), getattr(signal, cell.signal))

    lay = {
        "early": _early,
        "write": _write,
        "rename": _rename,
        "manifest": _manifest,
        "judging": _judging,
        "scores_rename": _rename,
        "scores_manifest": _manifest,
        "published": _published,
    }
    lay[cell.moment](Place(cell.stage, cell.moment in OF_SCORES), fire)


def _before(owner: Any, name: str, meets: Callable[..., bool], fire: Callable[[], None]) -> None:
    """Call `fire` before a function, where its arguments meet a condition."""
    original = getattr(owner, name)

    def hooked(*arguments: Any, **options: Any) -> Any:
        if meets(*arguments):
            fire()
        return original(*arguments, **options)

    setattr(owner, name, hooked)


@dataclass(frozen=True)
class Place:
    """Whose files are meant: a stage's own, or those of its scores."""

    stage: StageName
    scores: bool

    def is_of(self, working: Stage) -> bool:
        """Whether a stage at work writes these files."""
        return working.name == self.stage and working._place == (SCORES if self.scores else self.stage)

    def is_for(self, artifact: Artifact) -> bool:
        """Whether an artifact lies there."""
        return artifact.stage == (SCORES if self.scores else self.stage) and (not self.scores or self.stage in artifact.parents)


def _early(place: Place, fire: Callable[[], None]) -> None:
    name = "path" if place.stage in WITHOUT_FIT else "progress"
    _before(Stage, name, lambda self, *_: place.is_of(self), fire)


def _write(place: Place, fire: Callable[[], None]) -> None:
    """Half a file is on the disk: of a fit's second checkpoint, or of a stage's second file."""
    if place.stage in WITHOUT_FIT:
        _half_a_file(place, fire)
        return
    original, seen = dreampolish.optim.checkpoints.write_atomically, 0

    def hooked(path: Path, payload: bytes) -> None:
        nonlocal seen
        if path.suffix == ".safetensors" and path.parent.name.startswith(f"{place.stage}-"):
            seen += 1
            if seen == 2:
                partial_path(path).write_bytes(payload[: len(payload) // 2])
                fire()
        original(path, payload)

    dreampolish.optim.checkpoints.write_atomically = hooked


def _half_a_file(place: Place, fire: Callable[[], None]) -> None:
    original, seen = Stage.path, 0

    def hooked(self: Stage, filename: str) -> Path:
        nonlocal seen
        path = original(self, filename)
        if place.is_of(self):
            seen += 1
            if seen == 2:
                path.write_bytes(b"half of what belongs her")
                fire()
        return path

    Stage.path = hooked  # type: ignore[method-assign]


_judging = _half_a_file


def _rename(place: Place, fire: Callable[[], None]) -> None:
    _publishing(place, lambda work: _before(Path, "rename", lambda path, *_: path == work, fire))


def _manifest(place: Place, fire: Callable[[], None]) -> None:
    meets = lambda path, *_: path.name == MANIFEST  # noqa: E731
    _publishing(place, lambda work: _before(stages.runtime.store, "write_atomically", meets, fire))


def _publishing(place: Place, lay: Callable[[Path], None]) -> None:
    """Lay a hook, given the work folder, once the artifact that lies at a place is being published."""
    original = LocalStore.publish

    def hooked(self: LocalStore, work: Path, artifact: Any) -> Any:
        if place.is_for(artifact):
            lay(work)
        return original(self, work, artifact)

    LocalStore.publish = hooked  # type: ignore[method-assign]


def _published(place: Place, fire: Callable[[], None]) -> None:
    _before(stages.runtime.stage, "record_stage", lambda store, run_id, entry, *_: entry.name == place.stage, fire)
