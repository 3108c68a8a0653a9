"""One code path to run a stage, whoever asks: the flow, `dreampolish stage`, `python -m stages.<name>` or DVC.

A stage's function takes its parents' artifacts, named as in `schemas.runs.PARENTS`, its own section `config`, and `run`; the first
stage also takes `prompt` and `image` (a path, or None). At the end of each stage's file:

    if __name__ == "__main__":
        from stages.runtime.command import main

        main("neus", refine_sdf)
"""

import argparse
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dreampolish.optim.fit import FitInterruptedError
from schemas.artifacts import (
    Artifact,
    AssetArtifact,
    MeshArtifact,
    NerfArtifact,
    PolishedMeshArtifact,
    ReferenceArtifact,
    SdfArtifact,
    StageName,
    TexturedMeshArtifact,
)
from schemas.config.presets import ConfigError, merged
from schemas.runs import PARENTS, RunRecord
from stages.runtime.errors import StageError
from stages.runtime.files import store_folder
from stages.runtime.probing import FingerprintOnlyError, only_fingerprint
from stages.runtime.records import read_record, write_record
from stages.runtime.signals import StopSignal, stop_on_signals
from stages.runtime.stage import RunContext
from stages.runtime.store import DamagedArtifactError, LocalStore

StageFunction = Callable[..., Artifact]

ARTIFACTS: Mapping[StageName, type[Artifact]] = {
    "reference": ReferenceArtifact,
    "nerf": NerfArtifact,
    "neus": SdfArtifact,
    "dmtet": MeshArtifact,
    "polish": PolishedMeshArtifact,
    "texture": TexturedMeshArtifact,
    "export": AssetArtifact,
}


def context_of(record: RunRecord, store: Path, tracking_uri: str | None, show_progress: bool) -> RunContext:
    """The context that a run's stages share."""
    config = record.config
    return RunContext(
        run_id=record.run,
        store=store,
        seed=config.seed,
        device=config.device,
        threads=config.threads,
        checkpoint_interval=config.checkpoint_interval,
        priors=config.priors,
        tracking_uri=tracking_uri,
        show_progress=show_progress,
    )


def input_path(store: Path, digest: str) -> Path:
    """Where a user's picture is kept, by its hash."""
    return store / "inputs" / digest


def call_stage(
    name: StageName, function: StageFunction, record: RunRecord, run: RunContext, parents: Mapping[StageName, Artifact]
) -> Artifact:
    """Call a stage's function with the arguments it names. parents: at least those it reads.

    A Prefect task is called through its plain function: whether a task run surrounds the call is the caller's affair.
    """
    plain = getattr(function, "fn", function)
    image = None if record.image is None else input_path(run.store, record.image)
    offered: dict[str, Any] = {
        **{str(parent): artifact for parent, artifact in parents.items()},
        "config": getattr(record.config, name),
        "run": run,
        "prompt": record.prompt,
        "image": image,
    }
    wanted = inspect.signature(plain).parameters
    return plain(**{key: offered[key] for key in wanted})


def fingerprint_of(
    name: StageName, function: StageFunction, record: RunRecord, run: RunContext, parents: Mapping[StageName, Artifact]
) -> str:
    """The fingerprint that the stage's result would have today, with these parents; nothing is computed."""
    try:
        with only_fingerprint():
            artifact = call_stage(name, function, record, run, parents)
    except FingerprintOnlyError as known:
        return known.fingerprint
    raise TypeError(f"the function of stage {name} gave {type(artifact).__name__} without opening a stage")


def open_parents(name: StageName, record: RunRecord, store: Path) -> dict[StageName, Artifact]:
    """The artifacts a stage of a run reads. Raises StageError where an earlier stage has not run or its result is damaged."""
    return {parent: open_recorded(parent, record, store) for parent in PARENTS[name]}


def open_recorded(name: StageName, record: RunRecord, store: Path) -> Artifact:
    """The artifact a run has for a stage, verified."""
    if name not in record.stages:
        raise StageError(f"run {record.run} has no {name} yet", None, f"dreampolish resume {record.run}")
    try:
        return LocalStore(store).open(name, record.stages[name].fingerprint, ARTIFACTS[name])
    except (KeyError, DamagedArtifactError) as error:
        raise StageError(str(error.args[0]), None, f"dreampolish resume {record.run} computes it again") from error


def main(name: StageName, function: StageFunction, arguments: Sequence[str] | None = None) -> None:
    """The command line of one stage file; ends the process: 0, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}")
    parser.add_argument("--run", required=True, help="the run whose earlier stages are read")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    options = parser.parse_args(arguments)
    try:
        artifact = run_one(name, function, options.run, options.overrides, os.environ.get("MLFLOW_TRACKING_URI"), False)
    except (StageError, ConfigError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except (FitInterruptedError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{name}: {error}; the same command goes on from there\n")
        sys.exit(130)
    sys.stdout.write(json.dumps({"stage": name, "fingerprint": artifact.fingerprint, "metrics": artifact.metrics}) + "\n")


def run_one(
    name: StageName,
    function: StageFunction,
    run_id: str,
    overrides: Sequence[str],
    tracking_uri: str | None,
    show_progress: bool,
) -> Artifact:
    """One stage of an existing run, with settings changed or not; the run's record then names the new artifact and settings.

    A stage that fails or is stopped leaves the record as it was.
    """
    store = store_folder()
    with stop_on_signals() as stop, run_lock(store, read_record(store, run_id).run, stop):
        before = read_record(store, run_id)
        record = before.model_copy(update={"config": merged(before.config, {}, overrides)})
        parents = open_parents(name, record, store)
        artifact = call_stage(name, function, record, context_of(record, store, tracking_uri, show_progress), parents)
        done = read_record(store, record.run)
        if done.config != record.config:
            # Settings of other stages, given beside this one's.
            write_record(store, done.model_copy(update={"config": record.config}))
        return artifact


@contextmanager
def run_lock(store: Path, run_id: str, stop: StopSignal) -> Iterator[None]:
    """Hold the right to change a run's record and output; another process's turn is waited for. Raises StoppedError meanwhile."""
    with LocalStore(store).lock("run", run_id, lambda: stop.requested):
        yield
