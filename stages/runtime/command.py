"""One stage of a run, alone: `dreampolish stage`, `python -m stages.<name>` and DVC.

At the end of each stage's file:

    if __name__ == "__main__":
        from stages.runtime.command import main

        main(refine_sdf)
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dreampolish.optim.fit import FitInterruptedError
from schemas.artifacts import Artifact, IntakeArtifact, ScoresArtifact, StageName, stage_of
from schemas.config.presets import ConfigError, merged
from schemas.runs import PosedFile, RunRecord
from stages.runtime.context import RunContext, context_of
from stages.runtime.errors import StageError
from stages.runtime.files import keep_private, store_folder
from stages.runtime.records import read_record, write_record
from stages.runtime.shared.stores import bring_input, store_at
from stages.runtime.signals import StopSignal, stop_on_signals
from stages.runtime.stage import StageTask
from stages.runtime.store import DamagedArtifactError
from stages.runtime.tracking.messages import write_line

A = TypeVar("A", bound=Artifact)
AnyStage = StageTask[Any, Any]


def input_path(store: Path, digest: str) -> Path:
    """Where a user's picture is kept, by its hash."""
    return store / "inputs" / digest


def picture_of(record: RunRecord, store: Path) -> Path | None:
    """The user's picture of a run; None where the reference is drawn."""
    return None if record.image is None else brought_input(store, record.image)


def others_of(record: RunRecord, store: Path) -> tuple[PosedFile, ...]:
    """The user's pictures of a run from elsewhere than the front."""
    return tuple(PosedFile(brought_input(store, each.image), each.azimuth_deg, each.elevation_deg) for each in record.others)


def mesh_of(record: RunRecord, store: Path) -> Path | None:
    """The archive of a run's own mesh; None where the shape is made."""
    return None if record.mesh is None else brought_input(store, record.mesh)


def brought_input(store: Path, digest: str) -> Path:
    """Where a user's picture or mesh lies, brought from the shared store if that alone has it."""
    bring_input(store, digest)
    return input_path(store, digest)


def arguments_from_record(
    task: AnyStage, record: RunRecord, store: Path, parents: Mapping[StageName, Artifact]
) -> dict[str, Any]:
    """What a stage of a run is called with. parents: at least those that it reads, by stage."""
    inputs = {
        "prompt": record.prompt,
        "image": picture_of(record, store),
        "others": others_of(record, store),
        "mesh": mesh_of(record, store),
    }
    seen = {name: each for name, each in parents.items() if name != "intake" or record.sees_mesh(task.name)}
    return task.arguments(getattr(record.config, task.name), seen, inputs)


def open_parents(task: AnyStage, record: RunRecord, store: Path) -> dict[StageName, Artifact]:
    """The artifacts that a stage of a run reads. Raises StageError where an earlier stage has not run or its result is damaged."""
    found = {stage_of(parent): open_recorded(made_class(parent, record), record, store) for parent in task.parents.values()}
    optional = [parent for parent in task.optional_parents.values() if stage_of(parent) in record.chain]
    return {**found, **{stage_of(parent): open_recorded(parent, record, store) for parent in optional}}


def made_class(artifact_class: type[Artifact], record: RunRecord) -> type[Artifact]:
    """The class of what a run has for a class that a stage reads: in place of a mesh that no stage of it makes, the user's own."""
    stands_in = stage_of(artifact_class) not in record.chain and issubclass(IntakeArtifact, artifact_class)
    return IntakeArtifact if stands_in else artifact_class


def open_recorded(artifact_class: type[A], record: RunRecord, store: Path) -> A:
    """The artifact of a class that a run has, verified."""
    name = stage_of(artifact_class)
    if name not in record.stages:
        raise StageError(f"run {record.run} has no {name} yet", None, f"dreampolish resume {record.run}")
    try:
        return store_at(store).open(name, record.stages[name].fingerprint, artifact_class)
    except (KeyError, DamagedArtifactError) as error:
        raise StageError(str(error.args[0]), None, f"dreampolish resume {record.run} computes it again") from error


def open_scores(name: StageName, record: RunRecord, store: Path) -> ScoresArtifact | None:
    """The scores of a run's stage, verified; None for a stage that has none. Raises StageError where they are damaged."""
    key = record.stages[name].scores
    if key is None:
        return None
    try:
        return store_at(store).open("scores", key, ScoresArtifact)
    except (KeyError, DamagedArtifactError) as error:
        raise StageError(str(error.args[0]), None, f"dreampolish resume {record.run} computes them again") from error


def main(task: AnyStage, arguments: Sequence[str] | None = None) -> None:
    """The command line of one stage file; ends the process: 0, or 2 with one line on stderr."""
    keep_private()
    parser = argparse.ArgumentParser(prog=f"python -m stages.{task.name}")
    parser.add_argument("--run", required=True, help="the run whose earlier stages are read")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    options = parser.parse_args(arguments)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        artifact = run_one(task, options.run, options.overrides, tracking_uri=uri, show_progress=False)
        metrics = read_record(store_folder(), options.run).stages[task.name].metrics
    except (StageError, ConfigError) as error:
        write_line(str(error), "error")
        sys.exit(2)
    except (FitInterruptedError, KeyboardInterrupt) as error:
        write_line(f"{task.name}: {error}; the same command goes on from there", "error")
        sys.exit(130)
    write_line(json.dumps({"stage": task.name, "fingerprint": artifact.fingerprint, "metrics": metrics}), "out")


def run_one(
    task: AnyStage, run_id: str, overrides: Sequence[str], *, tracking_uri: str | None, show_progress: bool
) -> Artifact:
    """One stage of an existing run, with settings changed or not; the run's record then names the new artifact and settings.

    A stage that fails or is stopped leaves the record as it was.
    """
    store = store_folder()
    with stop_on_signals() as stop, run_lock(store, read_record(store, run_id).run, stop):
        before = read_record(store, run_id)
        record = before.model_copy(update={"config": merged(before.config, {}, overrides)})
        run = context_of(record, store, tracking_uri, show_progress=show_progress).model_copy(update={"taken_over": {}})
        artifact = compute_recorded(task, record, run, open_parents(task, record, store))
        done = read_record(store, record.run)
        if done.config != record.config:
            # Settings of other stages, given beside this one's.
            write_record(store, done.model_copy(update={"config": record.config}))
        return artifact


def compute_recorded(task: AnyStage, record: RunRecord, run: RunContext, parents: Mapping[StageName, Artifact]) -> Artifact:
    """One stage of a run without Prefect."""
    artifact: Artifact = task.compute(run, **arguments_from_record(task, record, run.store, parents))
    return artifact


@contextmanager
def run_lock(store: Path, run_id: str, stop: StopSignal) -> Iterator[None]:
    """Hold the right to change a run's record and output; another process's turn is waited for. Raises StoppedError meanwhile."""
    with store_at(store).lock("run", run_id, lambda: stop.requested):
        yield
