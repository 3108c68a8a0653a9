"""The flow of `dreampolish ablate`: one study, cell by cell; what the store holds is not computed again, so a stopped study goes on."""

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from prefect import flow
from prefect.runtime import flow_run
from torch import Tensor

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.optim.fit import FitInterruptedError
from flows.ablation.cell import Shown, Workplace, described, run_cell
from flows.ablation.document import cell_line, study_text
from flows.ablation.figures import judge_from_folder
from flows.ablation.plan import STUDIES, Cell, Plan, cell_config, code_digests, found_study, planned
from flows.ablation.plots import contact_sheet, plot
from flows.ablation.statistics import CellResult, StudyResult, paired, write_result
from flows.benchmark.page import date_line, machine_line, versions_line
from flows.benchmark.statistics import one_line
from flows.benchmark.subjects import data_of, held_out_names
from flows.benchmark.truth import SHOWN
from flows.runs.console import say
from flows.runs.parameters import Overrides, Preset, StudyName, override_lines
from flows.service.marks import at_work
from schemas.config.presets import merged
from schemas.config.run import Config
from schemas.studies import FITTED, Study
from stages.runtime.command import run_lock
from stages.runtime.context import device_from_name, threads_from_setting
from stages.runtime.errors import StageError
from stages.runtime.files import (
    OUTPUTS_ELSEWHERE,
    disk_errors_in_one_line,
    for_the_user,
    project_file,
    shared_url,
    store_folder,
    try_folder,
)
from stages.runtime.records import read_record, record_path
from stages.runtime.signals import StopSignal, stop_on_signals
from stages.runtime.tracking.files import PARENT_JOURNAL
from stages.runtime.tracking.journal import Journal, place_from_store

OUTPUTS = Path("outputs/ablations")
CODE_CHANGED = "The stages' code was changed while this study ran: run it again before its numbers are used."


@dataclass
class Progress:
    """What a study has so far, by cell's run."""

    results: dict[str, CellResult] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)


def _flow_run_name() -> str:
    """Named after the study; called by Prefect."""
    given = flow_run.get_parameters()["study"]
    name = given if isinstance(given, str) else given["name"] if isinstance(given, dict) else given.name
    return f"ablation {name}"


@flow(name="dreampolish", flow_run_name=_flow_run_name, persist_result=False, log_prints=False)
@at_work
def ablation(
    study: StudyName | Study, preset: Preset | None = None, overrides: Overrides = None, show_progress: bool = False
) -> dict[str, Any]:
    """Run a study's cells and compare them; study.json, table.md, sheet.png and plot.png go to outputs/ablations/<name>-<id>/.

    study: its content, or the name of one in configs/ablations. preset: in place of the study's own. overrides: settings for all cells.
    A cell's failure does not end the others; the result's `failures` names them. Raises ConfigError or StageError for what cannot begin.
    """
    store, changes = store_folder(), override_lines(overrides)
    plan = planned(found_study(STUDIES / f"{study}.yaml") if isinstance(study, str) else study, store, preset, changes)
    with for_the_user():
        try_folder(OUTPUTS / plan.title, OUTPUTS_ELSEWHERE)
    work = _workplace(plan, store, show_progress)
    journal, status, progress = _open_journal(work), "KILLED", Progress()
    try:
        with stop_on_signals() as stop:
            _run_all(work, progress, stop)
        result = _result(plan, progress, changes)
        folder = _write(work, result, progress, journal)
        status = "FINISHED" if progress.shown else "FAILED"
    finally:
        journal.end(status)
        journal.send(work.place)
    failures = [{"cell": work_label(cell), "message": cell.error} for cell in result.cells if cell.error is not None]
    table = result.means[[figure.key for figure in result.figures]].astype(object)
    means = table.where(table.notna(), None).to_dict("index")
    states = [entry.state for cell in result.cells for entry in cell.stages.values()]
    counts = {state: states.count(state) for state in ("computed", "resumed", "cached")}
    return {"output": str(folder.resolve()), "cells": len(result.cells), "stages": counts, "failures": failures, "means": means}


def work_label(cell: CellResult) -> str:
    """A cell's name for messages."""
    return f"{cell.variant} | {cell.subject} | seed {cell.seed}"


def _workplace(plan: Plan, store: Path, show: bool) -> Workplace:
    base = plan.configs[plan.study.base_name]
    prompts = tuple(cell.subject.prompt for cell in plan.cells)
    judge = judge_from_folder(project_file(base.priors.judge.source), prompts, tuple(held_out_names()))
    return Workplace(plan, store, place=place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI")), judge=judge, show=show)


def _open_journal(work: Workplace) -> Journal:
    study = work.plan.study
    tags = {"ablation": study.name, "preset": study.preset, "base": study.base_name, "study.id": work.plan.id}
    journal = Journal(work.journals / work.journal_name, PARENT_JOURNAL, f"ablation {work.plan.title}", tags)
    if journal.is_new:
        journal.params({"question": study.question, "seeds": study.seeds, "variants": list(study.all_variants())})
    for data in data_of([cell.subject.truth for cell in work.plan.cells if cell.subject.truth is not None]):
        journal.reads(data)
    # The cells' runs name this one as their parent, so it has to be there first.
    journal.send(work.place)
    return journal


def _run_all(work: Workplace, progress: Progress, stop: StopSignal) -> None:
    """First the cells whose settings are known, then those that are to take as long as others did.

    Processes that do the same study take turns at a cell: the second finds what the first has made.
    """
    cells = work.plan.cells
    ordered = [*_turned([cell for cell in cells if cell.config is not None]), *(cell for cell in cells if cell.config is None)]
    for number, cell in enumerate(ordered, start=1):
        stop.check(f"cell {number} of {len(ordered)}")
        say(f"cell {number} of {len(ordered)}: {cell.label}")
        try:
            config = cell.config or stretched_config(work, cell, progress.results)
            with run_lock(work.store, cell.run, stop):
                shown = run_cell(work, cell, config)
        except FitInterruptedError:
            raise
        except Exception as error:
            # Whatever goes wrong with one cell, the others still count.
            message = one_line(error)
            progress.results[cell.run] = described(work, cell, config=cell.config, figures={}, stages={}, error=message)
            say(f"  failed: {message}")
        else:
            progress.results[cell.run], progress.shown[cell.run] = shown.result, shown
            say(cell_line(shown.result))


def _turned(cells: Sequence[Cell]) -> list[Cell]:
    """Where machines share a store, the cells from a random one on: else the machines would wait for each other at every cell."""
    first = secrets.randbelow(len(cells)) if cells and shared_url() is not None else 0
    return [*cells[first:], *cells[:first]]


def stretched_config(work: Workplace, cell: Cell, results: Mapping[str, CellResult]) -> Config:
    """Settings of a `like` variant: one factor on the steps of the stretched stages, from the seconds of all cells that both other
    variants have. Once a cell of the variant has a run, its steps stand for all. Raises StageError where there is nothing to go by.
    """
    variant = work.plan.study.all_variants()[cell.variant]
    assert variant.like is not None
    assert variant.as_long_as is not None
    own = work.plan.configs[variant.like]
    earlier = [
        other.run for other in work.plan.cells if other.variant == cell.variant and record_path(work.store, other.run).is_file()
    ]
    if earlier:
        before = read_record(work.store, earlier[0]).config
        steps = {name: getattr(before, name).steps for name in FITTED}
    else:
        factor = stretch_factor(list(results.values()), variant.like, variant.as_long_as, variant.stretch)
        steps = {name: max(1, round(getattr(own, name).steps * factor)) for name in variant.stretch}
    config = merged(own, {name: {"steps": count} for name, count in steps.items()}, [])
    return cell_config(config, cell.subject, cell.seed)


def stretch_factor(results: Sequence[CellResult], like: str, as_long_as: str, stretch: Sequence[str]) -> float:
    """By what the steps of `stretch` are multiplied so that `like` takes as long as `as_long_as` did, seconds taken to grow with steps.

    Counted over the subjects and seeds of which both have seconds. Raises StageError without any.
    """
    taken = {(cell.variant, cell.subject, cell.seed): cell for cell in results if "seconds" in cell.figures}
    pairs = [
        (cell, taken[as_long_as, subject, seed])
        for (variant, subject, seed), cell in taken.items()
        if variant == like and (as_long_as, subject, seed) in taken
    ]
    wanted = sum(other.figures["seconds"] for _, other in pairs)
    whole = sum(cell.figures["seconds"] for cell, _ in pairs)
    moving = sum(cell.stages[name].seconds for cell, _ in pairs for name in stretch if name in cell.stages)
    if moving == 0:
        raise StageError(f"no cell of {like!r} and {as_long_as!r} has seconds to compare", None, "see why those failed")
    fixed = whole - moving
    if wanted <= fixed:
        raise StageError(
            f"{like!r} takes longer than {as_long_as!r} even without {', '.join(stretch)}", None, "stretch other stages"
        )
    return (wanted - fixed) / moving


def _result(plan: Plan, progress: Progress, overrides: Sequence[str]) -> StudyResult:
    base = plan.configs[plan.study.base_name]
    return StudyResult(
        study=plan.study.model_dump(mode="json"),
        id=plan.id,
        date=date_line(),
        machine=f"{machine_line(device_from_name(base.device))}; {threads_from_setting(base.threads)} threads",
        versions=versions_line(),
        overrides=list(overrides),
        cells=[progress.results[cell.run] for cell in plan.cells],
        notes=[CODE_CHANGED] if code_digests() != plan.code else [],
    )


def _true_pictures(work: Workplace) -> dict[str, Float[Tensor, "n h w 3"]]:
    """Of the subjects whose truth was rendered, by their names: one object can be several subjects."""
    truths = {cell.subject.name: cell.subject.truth.name for cell in work.plan.cells if cell.subject.truth is not None}
    return {name: work.truths[truth].views.rgb[list(SHOWN)].cpu() for name, truth in truths.items() if truth in work.truths}


def _write(work: Workplace, result: StudyResult, progress: Progress, journal: Journal) -> Path:
    """The study's output folder, and the same on the parent run's page."""
    folder = OUTPUTS / work.plan.title
    with for_the_user(), disk_errors_in_one_line(OUTPUTS, OUTPUTS_ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        write_result(folder / "study.json", result)
        contact_sheet(result, list(progress.shown.values()), _true_pictures(work)).save(folder / "sheet.png", optimize=True)
        links = ["![all cells](sheet.png)"]
        if progress.shown:
            plot(result, folder / "plot.png")
            links.insert(0, "![figures](plot.png)")
        write_atomically(folder / "table.md", study_text(result, "#", links).encode())
        for name in ("study.json", "table.md", "sheet.png", "plot.png"):
            if (folder / name).is_file():
                journal.file(folder / name)
    journal.metrics(len(progress.shown), parent_figures(result))
    return folder


def parent_figures(result: StudyResult) -> dict[str, float]:
    """mean/<figure>/<variant> and change/<figure>/<variant>, for the study's own run at the tracker."""
    found = {
        f"mean/{key}/{tracker_name(variant)}": float(mean) for (variant, key), mean in result.means.stack().dropna().items()
    }
    for variant in result.others:
        for figure in result.figures:
            change = paired(result.table, variant, result.spec.base_name, figure.key)
            if change is not None:
                found[f"change/{figure.key}/{tracker_name(variant)}"] = change.mean
    return {**found, "failures": float(sum(cell.error is not None for cell in result.cells))}


def tracker_name(variant: str) -> str:
    """A variant's name in the letters that the tracker takes."""
    return variant.replace("=", " ")
