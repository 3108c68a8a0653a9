"""Running stages of a run in order, as Prefect tasks whose states say Computed, Resumed or Cached."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from dreampolish.optim.fit import FitInterruptedError
from flows.report.output import shown_files, write_output
from flows.runs.chain import stage_function
from flows.runs.console import stage_line
from flows.service.deployments import gpu_slot
from flows.service.marks import note_run
from schemas.artifacts import Artifact, StageName
from schemas.runs import PARENTS, STAGES, RunRecord
from stages.runtime.command import call_stage, context_of, open_recorded, run_lock
from stages.runtime.files import disk_errors_in_one_line
from stages.runtime.progress import await_sends
from stages.runtime.records import read_record
from stages.runtime.signals import StoppedError, stop_on_signals
from stages.runtime.stage import RunContext
from stages.runtime.store import LocalStore
from stages.runtime.tracking import PARENT_JOURNAL, Journal, Place, place_from_store, replay_all

OUTPUTS = Path("outputs")
SENDS_S = 20.0
"""For the tracker to take what the stages had left, at the end of a run."""


def stages_of(record: RunRecord) -> Sequence[StageName]:
    """The stages that a run computes; the others it has taken over."""
    return STAGES if record.computes is None else record.computes


def compute(record: RunRecord, store: Path, stages: Sequence[StageName], show: bool) -> RunRecord:
    """Run the named stages of a run, taking the others from its record, and write the output folder.

    show: a moving line while a stage runs and one line after it, on the terminal's error stream. Raises StageError and what stages raise;
    FitInterruptedError or StoppedError after a signal, with the command that goes on as the error's note.
    """
    with stop_on_signals() as stop, disk_errors_in_one_line(store), run_lock(store, record.run, stop):
        place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
        journal = open_journal(record, store, place)
        status = "FAILED"
        try:
            note_run(store, record.run)
            run = context_of(record, store, place.uri, show)
            with gpu_slot(run.torch_device):
                done = _compute(record, run, stages, journal)
            status = "FINISHED"
            return done
        except (FitInterruptedError, StoppedError) as error:
            status = "KILLED"
            error.add_note(f"dreampolish resume {record.run}")
            raise
        finally:
            journal.end(status)
            await_sends(SENDS_S)
            journal.send(place)


def _compute(record: RunRecord, run: RunContext, stages: Sequence[StageName], journal: Journal) -> RunRecord:
    store = run.store
    artifacts: dict[StageName, Artifact] = {}
    for name in STAGES:
        if name in stages:
            artifacts[name] = as_task(name, record, run, artifacts)
            tell(journal, name, read_record(store, record.run), run.show_progress, artifacts[name])
        elif name in record.stages:
            artifacts[name] = open_recorded(name, record, store)
    done = write_output(read_record(store, record.run), artifacts, LocalStore(store), OUTPUTS)
    journal.set_tags({"output": done.output or ""})
    for path in shown_files(done):
        journal.file(path)
    return done


def as_task(name: StageName, record: RunRecord, run: RunContext, artifacts: Mapping[StageName, Artifact]) -> Artifact:
    """One stage as a Prefect task run, its parents as arguments, so that the graph shows them."""
    function = stage_function(name)

    @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
    def stage(**parents: Artifact) -> State[Artifact]:
        artifact = call_stage(name, function, record, run, parents)  # type: ignore[arg-type]
        state = read_record(run.store, run.run_id).stages[name].state
        return Completed(name=state.capitalize(), message=f"{name} {state}", data=artifact)

    # Prefect's types see a state inside a state where it has only taken ours over.
    finished: Any = stage(return_state=True, **{parent: artifacts[parent] for parent in PARENTS[name]})
    artifact: Artifact = finished.result()
    return artifact


def open_journal(record: RunRecord, store: Path, place: Place) -> Journal:
    """The pipeline run's own journal, with its parameters; what earlier runs left unsent is sent first, if the tracker is there."""
    journals = store / "journals"
    with suppress(Exception):
        # The tracker is away: every journal waits.
        replay_all(journals, place)
    tags = {
        "prompt": record.prompt,
        "preset": record.config.preset,
        "seed": str(record.config.seed),
        "dreampolish.run": record.run,
    }
    if record.parent_run is not None:
        tags["geometry_of"] = record.parent_run
    journal = Journal(journals / record.run, PARENT_JOURNAL, f"{record.prompt[:60]} {record.run}", tags)
    journal.params(record.config.model_dump(mode="json"))
    return journal


def tell(journal: Journal, name: StageName, record: RunRecord, show: bool, artifact: Artifact) -> None:
    """A finished stage's figures to the run's journal and, in one line, to the user."""
    entry = record.stages[name]
    step = STAGES.index(name)
    journal.metrics(step, {f"final/{name}/{key}": value for key, value in entry.metrics.items()})
    journal.metrics(step, {f"final/{name}/seconds": artifact.seconds})
    if show:
        stage_line(entry, artifact.notes)
