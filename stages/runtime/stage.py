"""`@stage`: from a function that computes to a stage: a typed Prefect task with a key, a place in the store, and a state.

    @stage("neus", reads={"reference": REFERENCE_VIEW, "nerf": ("field", "field_config", "occupancy")}, priors=("text", "view"))
    def refine_sdf(stage: Stage, reference: ReferenceArtifact, nerf: NerfArtifact, config: NeusConfig) -> SdfArtifact:
        state = load_file(stage.locate(nerf, nerf.field))
        ... fit(..., generator=stage.generator, checkpoints=stage.checkpoints, observer=...) ...
        return stage.publish(SdfArtifact, field=stage.path("field.safetensors"), ..., metrics={...})
    sdf = refine_sdf(run, reference, nerf, config.neus)  # in a flow, a task run; `.compute` does without Prefect, `.key` computes nothing

Parents are the parameters that are artifacts; the function sees only the fields of theirs that `reads` names.
"""

import functools
import inspect
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import numpy as np
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, ValidationError, validate_call

from dreampolish.kernels.announce import announcing
from dreampolish.optim.atomic_files import sha256_of
from dreampolish.optim.costs import reset_peak_memory
from dreampolish.optim.fit import DivergedError
from schemas.artifacts import Artifact, FileRef, ScoresArtifact, StageName, artifact_or_none, is_artifact, stage_of
from schemas.plans import NO_PLAN, Execution
from schemas.runs import StageRecord, StageState
from stages.runtime.context import RunContext, Scorer, memory_figures, out_of_memory, seeded_generator, set_up_torch
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line
from stages.runtime.keys.code import Code
from stages.runtime.keys.key import copied, input_value, only_read, read_fields, stage_key
from stages.runtime.keys.remembered import known_code
from stages.runtime.records import record_stage
from stages.runtime.shared.stores import store_at
from stages.runtime.signals import StopSignal, stop_on_signals
from stages.runtime.store import DamagedArtifactError
from stages.runtime.tracking.progress import StageProgress, journal_name

P = ParamSpec("P")
A = TypeVar("A", bound=Artifact)
R = TypeVar("R", bound=Artifact, covariant=True)
log = logging.getLogger(__name__)


class Stage:
    """One computation of one stage; made by `open_stage`."""

    def __init__(
        self,
        name: StageName,
        run: RunContext,
        config: BaseModel,
        key: str,
        parents: Sequence[Artifact],
        place: str | None = None,
    ) -> None:
        self.name, self.run, self.config, self.fingerprint = name, run, config, key
        self.store = store_at(run.store)
        # Copies: where one result holds the very string of another, Prefect takes the one for a parent of whoever reads the other.
        self.parents: dict[str, str] = {copied(parent.stage): copied(parent.fingerprint) for parent in parents}
        self.device = run.torch_device
        self.generator = seeded_generator(run.seed, name, self.device)
        journal = run.store / "journals" / run.run_id / f"{journal_name(name, key)}.jsonl"
        self.checkpoints = self.store.checkpoints(
            name, key, interval=run.checkpoint_interval, journal=journal, urgent=lambda: self._stop.requested
        )
        self.state: StageState = "computed"
        self.published: Artifact | None = None
        self._place = place or name
        self._work: Path | None = None
        self._stop = StopSignal()
        self._progress: StageProgress | None = None
        self._started = time.monotonic()

    def cached(self, artifact_class: type[A]) -> A | None:
        """The finished artifact if the store holds it, whole; a damaged one is discarded and computed anew."""
        if not self.store.has(self._place, self.fingerprint):
            return None
        try:
            artifact = self.store.open(self._place, self.fingerprint, artifact_class)
        except DamagedArtifactError as error:
            log.warning("%s; computing it again", error)
            self.store.discard_damaged(self._place, self.fingerprint)
            self.state = "computed" if self.checkpoints.latest() is None else "resumed"
            return None
        self.store.share(artifact)
        self.state, self.published = "cached", artifact
        return artifact

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of a parent's file, whose hash `open_stage` has verified."""
        return self.store.folder(parent.stage, self.parents[parent.stage]) / reference.path

    def path(self, filename: str) -> Path:
        """Where to write a file of this artifact."""
        if self._work is None:
            raise RuntimeError(f"stage {self.name} is cached: it has nothing to write")
        path = self._work / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def execution(self) -> Execution:
        """How this stage is to use memory."""
        return NO_PLAN if self.run.plan is None else self.run.plan.of(self.name)

    @property
    def logs_steps(self) -> bool:
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
        """Say how far the stage is; cheap enough for every step."""
        self.run.announce_step(self.name, step)
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
                    "cuda_peak_memory": cost.cuda_peak,
                    **references,
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            value = f" is {first['input']!r}" if isinstance(first["input"], int | float | str) else ""
            remedy = "try another seed or lower learning rates" if first["type"] == "finite_number" else "report it"
            raise StageError(f"{self.name}: {where}{value}: {first['msg']}", None, remedy) from error
        assert self._work is not None
        if self._progress is not None and self._place == self.name:
            self._progress.result(artifact, self.state)
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


class StageTask(Generic[P, R]):
    """A stage: its function, its key and its Prefect task. Made by `stage`."""

    def __init__(
        self,
        name: StageName,
        function: Callable[Concatenate[Stage, P], R],
        reads: Mapping[str, Sequence[str]],
        priors: Sequence[str],
        scorer: Scorer | None,
    ) -> None:
        self.name, self.priors, self._scorer = name, tuple(priors), scorer
        self.reads = {parent: tuple(fields) for parent, fields in reads.items()}
        self._function = function
        self._checked = validate_call(config={"arbitrary_types_allowed": True})(function)
        signature = inspect.signature(function, eval_str=True)
        self._parameters = list(signature.parameters.values())[1:]
        self.artifact_class = cast(type[R], signature.return_annotation)
        self.parents = {each.name: each.annotation for each in self._parameters if is_artifact(each.annotation)}
        """Classes of the artifacts that it always reads, by parameter."""
        optional = ((each.name, artifact_or_none(each.annotation)) for each in self._parameters)
        self.optional_parents = {key: each for key, each in optional if each is not None}
        """Classes of those that it reads where a run has them."""
        if set(self.reads) != (taken := {*self.parents, *self.optional_parents}):
            raise TypeError(f"stage {name} takes {sorted(taken)} and says what it reads of {sorted(self.reads)}")
        self.task = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(self._as_task)
        functools.update_wrapper(self, function)

    def __call__(self, run: RunContext, *args: P.args, **kwargs: P.kwargs) -> R:
        """One task run of the flow around it, its state named Computed, Resumed or Cached."""
        given = self._bind(args, kwargs)
        parents = self._given_parents(given)
        finished: Any = self.task(_Call(functools.partial(self._outcome, run, given)), return_state=True, **parents)
        return cast(R, finished.result())

    def compute(self, run: RunContext, *args: P.args, **kwargs: P.kwargs) -> R:
        """The same without Prefect."""
        return self._outcome(run, self._bind(args, kwargs))[0]

    def key(self, run: RunContext, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key that the result has today, with these parents; nothing is computed."""
        return self._key(run, self._bind(args, kwargs))

    def parent_names(self) -> tuple[StageName, ...]:
        """The stages whose results it reads in a run without a user's mesh, in order."""
        return tuple(name for key in self.reads if (name := stage_of((self.parents | self.optional_parents)[key])) != "intake")

    def arguments(
        self, settings: BaseModel, parents: Mapping[StageName, Artifact], inputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What to call it with, by parameter: settings for `config`, artifacts by stage, and inputs by name."""
        by_parent = {name: parents[stage_of(parent)] for name, parent in self.parents.items()}
        optional = {name: parents.get(stage_of(parent)) for name, parent in self.optional_parents.items()}
        return {**{each.name: inputs.get(each.name) for each in self._parameters}, **by_parent, **optional, "config": settings}

    def _given_parents(self, given: Mapping[str, Any]) -> dict[str, Artifact]:
        """The artifacts among the arguments, by parameter."""
        return {name: given[name] for name in self.reads if given[name] is not None}

    def _as_task(self, call: "_Call", **parents: Artifact) -> "State[R]":
        """What Prefect runs; the parents are arguments so that its graph shows them."""
        artifact, state = call.work()
        return Completed(name=state.capitalize(), message=f"{self.name} {state}", data=artifact)

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = inspect.Signature(self._parameters).bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _key(self, run: RunContext, given: Mapping[str, Any]) -> str:
        inputs = {name: input_value(value) for name, value in given.items() if name not in (*self.reads, "config")}
        reads = {name: read_fields(parent, self.reads[name]) for name, parent in self._given_parents(given).items()}
        return stage_key(
            name=self.name,
            run=run,
            settings=given["config"],
            inputs=inputs,
            reads=reads,
            priors=self.priors,
            code=function_code(self._function, self.name),
        )

    def _outcome(self, run: RunContext, given: Mapping[str, Any]) -> tuple[R, StageState]:
        with disk_errors_in_one_line(run.store):
            if self.name in run.taken_over:
                return store_at(run.store).open(self.name, run.taken_over[self.name], self.artifact_class), "cached"
            parents = list(self._given_parents(given).values())
            key = self._key(run, given)
            with open_stage(name=self.name, run=run, config=given["config"], parents=parents, key=key) as stage:
                artifact = stage.cached(self.artifact_class)
                if artifact is None:
                    seen = {name: only_read(each, self.reads[name]) for name, each in self._given_parents(given).items()}
                    artifact = self._checked(stage, **{**given, **seen})  # type: ignore[call-arg]
                stage.checkpoints.clear()
                scores = None if self._scorer is None else _scores(stage, self._scorer, artifact, given)
                _record(stage, artifact, scores)
                return artifact, stage.state


def function_code(function: Callable[..., Any], name: StageName) -> Code:
    """The code behind a stage's function."""
    module = function.__module__
    return known_code(f"stages.{name}" if module == "__main__" else module, function.__name__)


class _Call:
    """Work for a task run, opaque to Prefect."""

    def __init__(self, work: Callable[[], tuple[Any, StageState]]) -> None:
        self.work = work


def stage(
    name: StageName,
    *,
    reads: Mapping[str, Sequence[str]],
    priors: Sequence[str] = (),
    scorer: Scorer | None = None,
) -> Callable[[Callable[Concatenate[Stage, P], R]], StageTask[P, R]]:
    """Make a stage of a function `(stage, inputs and parents ..., config) -> artifact`.

    reads: by parent's parameter, the fields of the artifact that the function uses; no other field can be read, and none else enters the
    key. priors: those that it opens. scorer: looks at the result afterwards.
    """

    def decorate(function: Callable[Concatenate[Stage, P], R]) -> StageTask[P, R]:
        return StageTask(name=name, function=function, reads=reads, priors=priors, scorer=scorer)

    return decorate


@contextmanager
def open_stage(name: StageName, run: RunContext, config: BaseModel, parents: Sequence[Artifact], key: str) -> Iterator[Stage]:
    """Verify the parents, then hold lock, work folder, seed, signals and tracker while a stage is looked up or computed.

    Raises StageError, in one line, for damaged parents, a full disk, divergence, or a body that published nothing; StoppedError where a
    stop was asked for before the stage began.
    """
    with disk_errors_in_one_line(run.store), ExitStack() as held:
        stage = Stage(name=name, run=run, config=config, key=key, parents=parents)
        stage.store.check_parents(parents)
        stop = stage._stop = held.enter_context(stop_on_signals())
        stop.check(f"the {name} stage")
        # The lock is taken on a hit too: it costs nothing and a look-up never meets a half-renamed folder.
        held.enter_context(stage.store.lock(name, key, lambda: stop.requested))
        _prepare(stage, held)
        try:
            yield stage
        except DivergedError as error:
            raise StageError(f"{name}: {error}", None, "nothing was published") from error
        except torch.OutOfMemoryError as error:
            raise out_of_memory(name, run) from error
        if stage.published is None:
            raise StageError(f"{name} ended without a result", None, "report it")
        stage.checkpoints.clear()


def _prepare(stage: Stage, held: ExitStack) -> None:
    """Work folder, seeds, threads, tracker; on a hit only the tracker."""
    run, key = stage.run, journal_name(stage.name, stage.fingerprint)
    if stage.store.has(stage.name, stage.fingerprint):
        # `cached` may still find it damaged, so a work folder is made there too.
        stage.state = "cached"
    elif stage.checkpoints.latest() is not None:
        stage.state = "resumed"
    if run.log_steps:
        # Behind the look at the checkpoints: those of another machine bring its journal along.
        stage._progress = StageProgress(
            stage.name, key, stage.store.root, run.run_id, tracking_uri=run.tracking_uri, show=run.show_progress
        )
        held.callback(stage._progress.close)
        held.enter_context(announcing(stage._progress.say))
        stage._progress.params({stage.name: stage.config.model_dump(mode="json")})
    stage._work = stage.store.work_folder(stage.name, stage.fingerprint)
    held.callback(shutil.rmtree, stage._work, ignore_errors=True)
    set_up_torch(run, stage.name)
    reset_peak_memory()
    stage.checkpoints.begin()


def _scores(stage: Stage, scorer: Scorer, artifact: Artifact, given: Mapping[str, Any]) -> ScoresArtifact:
    """The scores of a result: found in the store, or made now, beside it."""
    reference = given["reference"]
    key = scorer.key(stage.run, artifact, reference, given["config"])
    scoring = Stage(name=stage.name, run=stage.run, config=stage.config, key=key, parents=[artifact, reference], place="scores")
    with stage.store.lock("scores", key, lambda: stage._stop.requested):
        found = scoring.cached(ScoresArtifact)
        if found is not None:
            return found
        scoring._work, scoring._progress = stage.store.work_folder("scores", key), stage._progress
        try:
            return scorer.compute(scoring, artifact, reference, given["config"])
        finally:
            shutil.rmtree(scoring._work, ignore_errors=True)


def _record(stage: Stage, artifact: Artifact, scores: ScoresArtifact | None) -> None:
    """Final figures to the tracker and to the run's record."""
    figures = memory_figures(stage.name, stage.run, artifact, is_new=stage.state != "cached")
    entry = StageRecord(
        name=stage.name,
        state=stage.state,
        seconds=time.monotonic() - stage._started,
        fingerprint=artifact.fingerprint,
        metrics={**artifact.metrics, **({} if scores is None else scores.metrics), **figures},
        scores=None if scores is None else scores.fingerprint,
    )
    if stage._progress is not None:
        stage._progress.finish(artifact, entry)
    settings = {stage.name: stage.config, "seed": stage.run.seed, "priors": stage.run.priors}
    record_stage(stage.run.store, stage.run.run_id, entry, settings)
    stage.run.announce(entry, artifact)
