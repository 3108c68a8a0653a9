"""The flow `dreampolish`: seven stages in a row, from a prompt or a picture to an asset."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from dreampolish.optim.fit import FitInterruptedError
from flows.report.output import shown_files, write_output
from flows.runs.console import say, stage_line, summary
from flows.runs.create import new_run, try_outputs
from flows.runs.parameters import Overrides, Picture, Preset, Prompt, RunId, override_lines
from flows.runs.roots import OUTPUTS, given_picture
from flows.service.deployments import gpu_slot
from flows.service.marks import at_work, note_run
from flows.store.collect import keep_bound
from flows.store.logs import rotate_logs
from schemas.artifacts import Artifact
from schemas.config.presets import ConfigError
from schemas.config.run import Config
from schemas.runs import ALL_STAGES, RunRecord, StageRecord
from stages.dmtet import extract_mesh
from stages.export import export_asset
from stages.intake import take_in_mesh
from stages.nerf import fit_nerf
from stages.neus import refine_sdf
from stages.polish import polish_mesh
from stages.reference import make_reference
from stages.runtime.command import mesh_of, picture_of, run_lock
from stages.runtime.context import RunContext, context_of
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line, store_folder
from stages.runtime.records import read_record, relative_to
from stages.runtime.shared.stores import store_at
from stages.runtime.signals import StoppedError, stop_on_signals
from stages.runtime.tracking.journal import PARENT_JOURNAL, Journal, Place, place_from_store, replay_all
from stages.runtime.tracking.progress import await_sends
from stages.texture import paint_texture

SENDS_S = 20.0
"""For the tracker to take what the stages had left, at the end of a run."""


@flow(name="dreampolish", flow_run_name="{prompt}", persist_result=False, log_prints=False)
@at_work
def text_to_3d(
    prompt: Prompt,
    preset: Preset = "home",
    overrides: Overrides = None,
    image: Picture | None = None,
    run: RunId | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Make an asset; `run` continues a run that exists, with its own prompt, settings and stages. Returns what `--json` prints.

    image: the hash that `dreampolish upload` printed, or the path of a picture under a root (flows/runs/roots.py).
    """
    store = store_folder()
    record = (
        new_run(
            store=store,
            prompt=prompt,
            preset=preset,
            overrides=override_lines(overrides),
            image=None if image is None else given_picture(store, image),
        )
        if run is None
        else read_record(store, run)
    )
    with open_run(record, store, show_progress=show_progress) as this:
        if record.mesh is None:
            make_asset(this, record)
        else:
            paint_given_mesh(this, record)
        done = this.written()
    make_room(store)
    return done


def make_room(store: Path) -> None:
    """Keep the bound that the store's settings name, if they name one; what keeps it from being kept is said and ends no run."""
    try:
        keep_bound(store)
    except (StageError, ConfigError) as error:
        say(f"no room was made: {error}")


def paint_given_mesh(this: "OpenRun", record: RunRecord) -> None:
    """The four stages of a run that begins with a user's own mesh."""
    config, context, mesh = this.config, this.context, mesh_of(record, this.context.store)
    assert mesh is not None
    intake = take_in_mesh(context, mesh, config.intake)
    reference = make_reference(context, record.prompt, picture_of(record, context.store), config.reference, intake=intake)
    textured = paint_texture(context, reference, intake, config.texture)
    export_asset(context, reference, textured, config.export, intake=intake)


def make_asset(this: "OpenRun", record: RunRecord) -> None:
    """The stages of a run in a row; those whose results the store has are looked up."""
    config, context = this.config, this.context
    reference = make_reference(context, record.prompt, picture_of(record, context.store), config.reference)
    nerf = fit_nerf(context, reference, config.nerf)
    sdf = refine_sdf(context, reference, nerf, config.neus)
    mesh = extract_mesh(context, reference, sdf, config.dmtet)
    polished = polish_mesh(context, reference, mesh, config.polish)
    textured = paint_texture(context, reference, polished, config.texture)
    export_asset(context, reference, textured, config.export)


@dataclass(frozen=True)
class OpenRun:
    """A run while its stages are called. journal: the whole run's own, beside those of its stages."""

    config: Config
    context: RunContext
    journal: Journal

    def written(self) -> dict[str, Any]:
        """Write the output folder; what `--json` prints."""
        store = self.context.store
        done = write_output(read_record(store, self.context.run_id), store_at(store), OUTPUTS)
        self.journal.set_tags({"output": relative_to(store, done).output or ""})
        for path in shown_files(done):
            self.journal.file(path)
        return summary(done)


@contextmanager
def open_run(record: RunRecord, store: Path, *, show_progress: bool) -> Iterator[OpenRun]:
    """Hold a run, its journal and the GPU slot while its stages are called.

    show_progress: a moving line while a stage runs and one line after it, on the terminal's error stream. Raises StageError and what
    stages raise; FitInterruptedError or StoppedError after a signal, with the command that goes on as the error's note.
    """
    with stop_on_signals() as stop, disk_errors_in_one_line(store), run_lock(store, record.run, stop):
        try_outputs(record, OUTPUTS)
        rotate_logs(store)
        place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
        journal = _open_journal(record, store, place)
        status = "FAILED"
        try:
            note_run(store, record.run)
            context = context_of(record, store, place.uri, show_progress=show_progress)
            context.listen(lambda entry, artifact: _stage_ended(journal, entry, artifact, show_progress))
            with gpu_slot(context.torch_device):
                yield OpenRun(record.config, context, journal)
            status = "FINISHED"
        except (FitInterruptedError, StoppedError) as error:
            status = "KILLED"
            error.add_note(f"dreampolish resume {record.run}")
            raise
        finally:
            journal.end(status)
            await_sends(SENDS_S)
            journal.send(place)


def _stage_ended(journal: Journal, entry: StageRecord, artifact: Artifact, show_progress: bool) -> None:
    """A finished stage's figures to the run's journal and, in one line, to the user."""
    step = ALL_STAGES.index(entry.name)
    journal.metrics(step, {f"final/{entry.name}/{key}": value for key, value in entry.metrics.items()})
    journal.metrics(step, {f"final/{entry.name}/seconds": artifact.seconds})
    if show_progress:
        stage_line(entry, artifact.notes)


def _open_journal(record: RunRecord, store: Path, place: Place) -> Journal:
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
