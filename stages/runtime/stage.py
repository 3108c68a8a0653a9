"""What a stage is given: its run, its place in the store, its seed, device, tracker and checkpoints.

def refine_sdf(reference: ReferenceArtifact, nerf: NerfArtifact, config: NeusConfig, run: RunContext) -> SdfArtifact:
    with open_stage("neus", run, config, parents=[reference, nerf], priors=[text_digest, view_digest]) as stage:
        if (done := stage.cached(SdfArtifact)) is not None:
            return done
        state = load_file(stage.locate(nerf, nerf.field))
        ... fit(..., generator=stage.generator, checkpoints=stage.checkpoints, observer=...) ...
        save_file(field.state_dict(), stage.path("field.safetensors"))
        return stage.publish(SdfArtifact, field=stage.path("field.safetensors"), ..., metrics={...})
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from dreampolish.optim.fit import DivergedError
from schemas.artifacts import Artifact, FileRef, StageName
from schemas.config.run import PriorsConfig
from schemas.runs import StageState
from stages.runtime.context import device_from_name, reset_peak_memory, seeded_generator, stage_seed
from stages.runtime.costed_checkpoints import CostedCheckpoints
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line, project_file, sha256_of
from stages.runtime.key import PROJECT, code_digest, fingerprint
from stages.runtime.probing import answer_probe
from stages.runtime.progress import StageProgress
from stages.runtime.records import record_stage
from stages.runtime.signals import StopSignal, stop_on_signals
from stages.runtime.store import DamagedArtifactError, LocalStore

A = TypeVar("A", bound=Artifact)
log = logging.getLogger(__name__)


class RunContext(BaseModel):
    """What all stages of one run share. Serialisable, so that it crosses process borders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    store: Path
    seed: int
    device: str
    """auto, cpu, cuda or cuda:N."""
    threads: int
    checkpoint_interval: int
    priors: PriorsConfig
    tracking_uri: str | None = None
    """Of the tracker; None switches tracking off."""
    show_progress: bool = False
    """A moving line on the terminal."""
    told: bool = True
    """Whether figures and pictures of the steps are journalled, sent and shown at all; False is for measuring what that costs."""

    @property
    def torch_device(self) -> torch.device:
        """The device the names means on this machine. Raises StageError for one that is not there."""
        return device_from_name(self.device)

    def prior_folder(self, source: str) -> Path | str:
        """A prior's folder, relative sources starting at the project; a hub id (owner/name, no such folder) stays a string."""
        folder = project_file(source)
        return folder if folder.exists() or source.count("/") != 1 or source.startswith(("priors/", ".")) else source


class Stage:
    """One computation of one stage; made by `open_stage`."""

    def __init__(self, name: StageName, run: RunContext, config: BaseModel, key: str, parents: Sequence[Artifact]) -> None:
        self.name, self.run, self.config, self.fingerprint = name, run, config, key
        self.store = LocalStore(run.store)
        self.parents = {parent.stage: parent.fingerprint for parent in parents}
        self.device = run.torch_device
        self.generator = seeded_generator(run.seed, name, self.device)
        self.checkpoints = CostedCheckpoints(
            self.store.root / "checkpoints" / f"{name}-{key}", interval=run.checkpoint_interval, keep=2
        )
        self.state: StageState = "computed"
        self.published: Artifact | None = None
        self._work: Path | None = None
        self._stop = StopSignal()
        self._progress: StageProgress | None = None
        self._started = time.monotonic()

    def cached(self, artifact_class: type[A]) -> A | None:
        """The finished artifact if the store holds it, whole; a damaged one is discarded and computed anew."""
        if not self.store.has(self.name, self.fingerprint):
            return None
        try:
            artifact = self.store.open(self.name, self.fingerprint, artifact_class)
        except DamagedArtifactError as error:
            log.warning("%s; computing it again", error)
            self.store.discard(self.name, self.fingerprint)
            self.state = "computed" if self.checkpoints.latest() is None else "resumed"
            return None
        self.state, self.published = "cached", artifact
        return artifact

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of a parent's file, whose hash `open_stage` has verified."""
        return self.store.folder(parent.stage, parent.fingerprint) / reference.path

    def path(self, filename: str) -> Path:
        """Where to write a file of this artifact."""
        if self._work is None:
            raise RuntimeError(f"stage {self.name} is cached: it has nothing to write")
        path = self._work / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def told(self) -> bool:
        """Whether anybody hears of this stage's steps."""
        return self._progress is not None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step, named without the stage (`psnr`, not `nerf/psnr`). Journalled at once, sent in batches."""
        if self._progress is not None:
            self._progress.log(step, values)

    def image(self, name: str, step: int, picture: np.ndarray) -> None:
        """A picture (H, W, 3) of a step: uint8, or floats in [0, 1]."""
        if self._progress is not None:
            self._progress.image(name, step, picture)

    def progress(self, step: int, total: int) -> None:
        """Tell how far the stage is; cheap enough for every step."""
        if self._progress is not None:
            self._progress.advance(step, total)

    def stop_requested(self) -> bool:
        """True after the first Ctrl-C or SIGTERM: checkpoint and end. The second one kills."""
        self._stop.acknowledge()
        return self._stop.requested

    def publish(self, artifact_class: type[A], *, metrics: Mapping[str, float], **fields: Any) -> A:
        """Make the result visible. Paths in `fields` (also in lists and dicts) become file references.

        Raises StageError on a metric that is NaN or infinite, or a file that was not written.
        """
        references = {name: self._referenced(value) for name, value in fields.items()}
        cost = self.checkpoints.cost()
        try:
            artifact = artifact_class.model_validate(
                {
                    "fingerprint": self.fingerprint,
                    "parents": self.parents,
                    "metrics": dict(metrics),
                    "seconds": cost.seconds,
                    "peak_memory": cost.peak_memory,
                    **references,
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            told = f" is {first['input']!r}" if isinstance(first["input"], int | float | str) else ""
            remedy = "try another seed or lower learning rates" if first["type"] == "finite_number" else "report it"
            raise StageError(f"{self.name}: {where}{told}: {first['msg']}", None, remedy) from error
        assert self._work is not None
        self.published = self.store.publish(self._work, artifact)
        return artifact

    def _referenced(self, value: Any) -> Any:
        if isinstance(value, Path):
            assert self._work is not None
            if not value.is_file():
                raise StageError(f"{self.name} did not write {value.name}", None, "report it")
            return FileRef(path=str(value.relative_to(self._work)), sha256=sha256_of(value), bytes=value.stat().st_size)
        if isinstance(value, dict):
            return {key: self._referenced(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(self._referenced(item) for item in value)
        return value


@contextmanager
def open_stage(
    name: StageName,
    run: RunContext,
    config: BaseModel,
    parents: Sequence[Artifact],
    priors: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
) -> Iterator[Stage]:
    """Verify the parents, look the result up, else hold lock, work folder, seed, signals and tracker while it is computed.

    priors: digests of the weights used. inputs: JSON values that the result depends on and that are no setting (the prompt).
    Raises StageError, told in one line, for damaged parents, a full disk, divergence, or a body that published nothing; StoppedError
    where a stop was asked for before the stage began.
    """
    with disk_errors_in_one_line(run.store):
        key = stage_fingerprint(name, run, config, parents, priors, inputs)
        answer_probe(key)
        stage = Stage(name, run, config, key, parents)
        _verify(stage.store, parents)
        with ExitStack() as held:
            stop = stage._stop = held.enter_context(stop_on_signals())
            stop.check(f"the {name} stage")
            # The lock is taken on a hit too: it costs nothing and a look-up never meets a half-renamed folder.
            held.enter_context(stage.store.lock(name, key, lambda: stop.requested))
            _prepare(stage, held)
            try:
                yield stage
            except DivergedError as error:
                raise StageError(f"{name}: {error}", None, "nothing was published") from error
            if stage.published is None:
                raise StageError(f"{name} ended without a result", None, "report it")
            stage.checkpoints.clear()
            if stage._progress is not None:
                stage._progress.finish(stage.published, stage.state)
            seconds = time.monotonic() - stage._started
            settings = {name: config, "seed": run.seed, "priors": run.priors}
            record_stage(run.store, run.run_id, stage.published, stage.state, seconds, settings)


def stage_fingerprint(
    name: StageName,
    run: RunContext,
    config: BaseModel,
    parents: Sequence[Artifact],
    priors: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
) -> str:
    """The fingerprint that `open_stage` uses for the same arguments."""
    return fingerprint(
        name,
        config,
        {parent.stage: parent.fingerprint for parent in parents},
        priors,
        {"seed": run.seed, "device": run.torch_device.type, **(inputs or {})},
        code_digest(f"stages.{name}", PROJECT),
    )


def _verify(store: LocalStore, parents: Sequence[Artifact]) -> None:
    for parent in parents:
        try:
            store.open(parent.stage, parent.fingerprint, type(parent))
        except (KeyError, DamagedArtifactError) as error:
            what = str(error.args[0])
            raise StageError(what, None, f"run the {parent.stage} stage again: its damaged result is not used") from error


def _prepare(stage: Stage, held: ExitStack) -> None:
    """Work folder, seeds, threads, tracker; on a hit only the tracker."""
    run = stage.run
    key = f"{stage.name}-{stage.fingerprint[:12]}"
    if run.told:
        stage._progress = StageProgress(stage.name, key, stage.store.root, run.run_id, run.tracking_uri, run.show_progress)
        held.callback(stage._progress.close)
        stage._progress.params({stage.name: stage.config.model_dump(mode="json")})
    if stage.store.has(stage.name, stage.fingerprint):
        # `cached` may still find it damaged, so a work folder is made there too.
        stage.state = "cached"
    elif stage.checkpoints.latest() is not None:
        stage.state = "resumed"
    stage._work = stage.store.work_folder(stage.name, stage.fingerprint)
    held.callback(shutil.rmtree, stage._work, ignore_errors=True)
    torch.set_num_threads(run.threads)
    torch.manual_seed(stage_seed(run.seed, stage.name))
    reset_peak_memory()
    stage.checkpoints.begin()
