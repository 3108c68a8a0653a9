"""The flow `dreampolish`: seven stages in a row, from a prompt or a picture to an asset."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from dreampolish.optim.fit import FitInterruptedError
from flows.report.live.prefect_page import show_in_prefect
from flows.report.output import shown_files, write_output
from flows.runs.console import say, stage_line, summary
from flows.runs.create import new_run, try_outputs
from flows.runs.given_mesh import GivenMesh
from flows.runs.parameters import MeshPath, Overrides, Pictures, Preset, Prompt, RunId, Vram, override_lines
from flows.runs.roots import OUTPUTS, given_mesh, given_pictures
from flows.service.deployments import gpu_slot
from flows.service.marks import at_work, note_run
from flows.service.processes import live_url
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
from stages.runtime.command import mesh_of, others_of, picture_of, run_lock
from stages.runtime.context import RunContext, context_of
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line, store_folder
from stages.runtime.records import read_record, relative_to
from stages.runtime.shared.stores import store_at
from stages.runtime.signals import StoppedError, stop_on_signals
from stages.runtime.tracking.events import tell_prefect
from stages.runtime.tracking.files import PARENT_JOURNAL
from stages.runtime.tracking.journal import Journal, Place, place_from_store, replay_all, run_page
from stages.runtime.tracking.live import forget_live
from stages.runtime.tracking.machine import machine_watched
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
    image: Pictures | None = None,
    mesh: MeshPath | None = None,
    run: RunId | None = None,
    vram: Vram = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Make an asset; `run` continues a run that exists, with its own prompt, settings and stages. Returns what `--json` prints.

    image, mesh: the hash that `dreampolish upload` printed, or the path of a file under a root (flows/runs/roots.py). image: or a list of
    them, all but the front's with @AZIMUTH[,ELEVATION] behind it. mesh: what the shape starts from, in place of a NeRF. vram:
    GiB of a GPU to plan a new run for; else what it has free.
    """
    store = store_folder()
    pictures = given_pictures(store, image)
    record = (
        new_run(
            store=store,
            prompt=prompt,
            preset=preset,
            overrides=[*pictures.settings, *override_lines(overrides)],
            image=pictures.front,
            others=pictures.others,
            given=None if mesh is None else GivenMesh(given_mesh(store, mesh), use="start"),
            vram=vram,
        )
        if run is None
        else read_record(store, run)
    )
    with open_run(record, store, show_progress=show_progress) as this:
        make_asset(this, record)
        done = this.written()
    make_room(store)
    return done


def make_room(store: Path) -> None:
    """Keep the bound that the store's settings name, if they name one; what keeps it from being kept is said and ends no run."""
    try:
        keep_bound(store)
    except (StageError, ConfigError) as error:
        say(f"no room was made: {error}")


def make_asset(this: "OpenRun", record: RunRecord) -> None:
    """The seven stages of a run in a row; those whose results the store has are looked up."""
    if record.mesh is not None:
        _make_from_mesh(this, record)
        return
    config, context = this.config, this.context
    others = others_of(record, context.store)
    reference = make_reference(context, record.prompt, picture_of(record, context.store), config.reference, others=others)
    nerf = fit_nerf(context, reference, config.nerf)
    sdf = refine_sdf(context, reference, nerf, config.neus)
    mesh = extract_mesh(context, reference, sdf, config.dmtet)
    polished = polish_mesh(context, reference, mesh, config.polish)
    textured = paint_texture(context, reference, polished, config.texture)
    export_asset(context, reference, textured, config.export)


def _make_from_mesh(this: "OpenRun", record: RunRecord) -> None:
    """The stages of a run that begins with a user's own mesh: painted as it is, polished first, or the start of a new shape."""
    config, context, given = this.config, this.context, mesh_of(record, this.context.store)
    assert given is not None
    intake = take_in_mesh(context, given, config.intake)
    picture, shown = picture_of(record, context.store), intake if record.sees_mesh("reference") else None
    others = others_of(record, context.store)
    reference = make_reference(context, record.prompt, picture, config.reference, others=others, intake=shown)
    if record.mesh_use == "start":
        sdf = refine_sdf(context, reference, None, config.neus, intake=intake)
        mesh = extract_mesh(context, reference, sdf, config.dmtet)
        polished = polish_mesh(context, reference, mesh, config.polish)
        textured = paint_texture(context, reference, polished, config.texture)
        export_asset(context, reference, textured, config.export)
        return
    surface = polish_mesh(context, reference, intake, config.polish) if record.mesh_use == "polish" else intake
    textured = paint_texture(context, reference, surface, config.texture)
    export_asset(context, reference, textured, config.export, intake=intake)


@dataclass(frozen=True)
class OpenRun:
    """A run while its stages are called. journal: the whole run's own, beside those of its stages."""

    config: Config
    context: RunContext
    journal: Journal
    place: Place

    def written(self) -> dict[str, Any]:
        """Write the output folder and show it at the tracker and in Prefect; what `--json` prints."""
        store = self.context.store
        done = write_output(read_record(store, self.context.run_id), store_at(store), OUTPUTS)
        self.journal.set_tags({"output": relative_to(store, done).output or ""})
        for path in shown_files(done):
            self.journal.file(path)
        show_in_prefect(done, self._pages())
        figures = {name: entry.metrics.get("alignment") for name, entry in done.stages.items()}
        tell_prefect(
            "asset.finished", f"run.{done.run}", done.prompt, {"run": done.run, "output": done.output, "alignment": figures}
        )
        return summary(done)

    def _pages(self) -> list[tuple[str, str]]:
        """Words and addresses of the run's pages elsewhere, as far as servers for them run."""
        store, run = self.context.store, self.context.run_id
        shown = live_url(store, "watch")
        pages = [] if shown is None else [("report and stages", f"{shown}/runs/{run}")]
        with suppress(Exception):
            # The tracker is away.
            page = run_page(self.journal.folder, PARENT_JOURNAL, self.place)
            pages += [] if page is None else [("curves, pictures and settings in MLflow", page)]
        return pages


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
            context.listen(lambda entry, artifact: _tell_cached(record, entry))
            with gpu_slot(context.torch_device), machine_watched(journal, place):
                yield OpenRun(record.config, context, journal, place)
            status = "FINISHED"
            forget_live(store, record.run)
        except (FitInterruptedError, StoppedError) as error:
            status = "KILLED"
            go_on = f"dreampolish resume {record.run}"
            error.add_note(go_on)
            tell_prefect("run.stopped", f"run.{record.run}", record.prompt, {"run": record.run, "go_on_with": go_on})
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


def _tell_cached(record: RunRecord, entry: StageRecord) -> None:
    """An event for a stage whose result the store had."""
    if entry.state == "cached":
        payload = {"run": record.run, "stage": entry.name, "fingerprint": entry.fingerprint}
        tell_prefect("stage.cached", f"run.{record.run}", record.prompt, payload)


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
