"""The flow `benchmark`: objects whose true shape is known go through the pipeline, and every stage's result is measured."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from prefect import flow

from dreampolish.optim.fit import FitInterruptedError
from flows.benchmark.assets import asset_result
from flows.benchmark.overhead import Overhead, read_overheads
from flows.benchmark.page import Setting, machine_line, report_text, versions_line
from flows.benchmark.rasterizers import Rasterizers, read_rasterizers
from flows.benchmark.runs import Pipeline, one_object, one_prompt
from flows.benchmark.stages import ROWS
from flows.benchmark.statistics import FIGURES, Failure, ObjectResult, Results, mean_of, r_precision
from flows.benchmark.subjects import Subject, found_subjects, prompts_of, remarks_of
from flows.runs.console import say
from flows.runs.create import CONFIGS, check_priors, new_id
from flows.runs.parameters import Overrides, Preset, override_lines
from flows.service.marks import at_work
from schemas.config.presets import load_config
from schemas.config.run import Config
from stages.results.files import StoredFiles
from stages.runtime.files import disk_errors_in_one_line, project_file, store_folder
from stages.runtime.signals import stop_on_signals
from stages.runtime.store import LocalStore
from stages.runtime.tracking import PARENT_JOURNAL, Journal, Place, place_from_store

DOCS = Path("docs")
NAMES = project_file("configs/data/held_out_names.txt")
T = TypeVar("T")


@flow(name="dreampolish", flow_run_name="benchmark", persist_result=False, log_prints=False)
@at_work
def benchmark(
    objects: Path,
    preset: Preset = "home",
    overrides: Overrides = None,
    only: list[str] | None = None,
    with_prompts: bool = True,
) -> dict[str, Any]:
    """Run and measure every object, then the prompts; write docs/benchmarks.md and a contact sheet an object.

    What the store holds already is not computed again, nor measured again while the measuring code is the same.

    objects: a folder of GLBs, or of folders with mesh.glb, reference.png and attribution.json; what its remarks.txt says of them goes
    onto the page. only: names of objects to take. One object's failure does not end the others; the result's `failures` names them.
    Raises ConfigError for what cannot begin.
    """
    store, changed = store_folder(), tuple(override_lines(overrides))
    config = load_config(preset, CONFIGS, changed)
    check_priors(config)
    subjects = found_subjects(objects, only or [], config.reference.elevation_deg)
    prompts = prompts_of(objects) if with_prompts else []
    names = NAMES.read_text().splitlines()
    beside = read_overheads(store), read_rasterizers(store)
    pipeline = Pipeline(store, preset, changed, config.device)
    place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
    folder, results, status = store / "journals" / f"benchmark-{new_id()}", Results(), "FAILED"
    journal = _open_journal(folder, config, objects, len(subjects))
    try:
        # Held over all runs, so that a signal in the last moments of one keeps the next from beginning.
        with stop_on_signals():
            _measure_objects(pipeline, subjects, results, folder, place)
            _measure_prompts(pipeline, prompts, names, results)
        journal.metrics(0, mean_figures(results))
        setting = setting_of(config, changed, objects, len(names))
        page = write_report(results, setting, *beside, keep_prompts=not with_prompts)
        status = "FAILED" if results.failures else "FINISHED"
    finally:
        journal.end(status)
        journal.send(place)
    return {"output": str(page.resolve()), **asdict(results)}


def _measure_objects(pipeline: Pipeline, subjects: Sequence[Subject], results: Results, folder: Path, place: Place) -> None:
    for number, subject in enumerate(subjects, start=1):
        say(f"object {number} of {len(subjects)}, {subject.name}: {subject.prompt}")
        done = _isolated(subject.name, results, partial(one_object, pipeline, subject))
        if done is not None:
            result, picture = done
            results.objects.append(result)
            _log_object(result, write_sheet(result.name, picture), folder, place)
            _measure_asset(pipeline, result.name, result.run, results)


def _measure_prompts(pipeline: Pipeline, prompts: Sequence[str], names: Sequence[str], results: Results) -> None:
    for number, prompt in enumerate(prompts):
        say(f"prompt {number + 1} of {len(prompts)}: {prompt}")
        done = _isolated(prompt, results, partial(one_prompt, pipeline, number, prompts, names))
        if done is not None:
            results.prompts.append(done)
            say(f"  the judge takes {done.hits} of {done.views} views for it, most for: {done.nearest}")
            _measure_asset(pipeline, prompt, done.run, results)


def _measure_asset(pipeline: Pipeline, name: str, run: str, results: Results) -> None:
    files = StoredFiles(LocalStore(pipeline.store), pipeline.torch_device)
    found = _isolated(f"{name}, its asset", results, partial(asset_result, name, run, files))
    if found is not None:
        results.assets.append(found)
        say(f"  asset: {found.errors} errors, {found.warnings} warnings, {found.megabytes:.2f} MB, {found.ours.mean:.1f} dB")


def _isolated(name: str, results: Results, work: Callable[[], T]) -> T | None:
    """Do one object's work; its failure is noted and told, and None returned. A stop that the user asked for goes through."""
    try:
        return work()
    except FitInterruptedError:
        raise
    except Exception as error:
        # Whatever goes wrong with one object, the others still count.
        message = " ".join((str(error) or type(error).__name__).split())
        results.failures.append(Failure(name, message))
        say(f"  failed: {message}")
        return None


def mean_figures(results: Results) -> dict[str, float]:
    """What the parent run at the tracker gets: benchmark/<stage>/<figure> as means over the objects, and the R-precision."""
    found = {
        f"benchmark/{stage}/{figure.key}": mean_of(results.objects, stage, figure.key) for stage in ROWS for figure in FIGURES
    }
    found["benchmark/r_precision"] = r_precision(results.prompts)
    found["benchmark/failures"] = float(len(results.failures))
    return {key: value for key, value in found.items() if value is not None}


def _open_journal(folder: Path, config: Config, objects: Path, n_objects: int) -> Journal:
    tags = {"preset": config.preset, "seed": str(config.seed), "objects": str(objects)}
    journal = Journal(folder, PARENT_JOURNAL, f"benchmark of {n_objects} objects", tags)
    journal.params(config.model_dump(mode="json"))
    return journal


def _log_object(result: ObjectResult, picture: np.ndarray, folder: Path, place: Place) -> None:
    """One object's figures and contact sheet, as a child of the benchmark's run."""
    journal = Journal(folder, result.name, result.name, {"dreampolish.run": result.run, "prompt": result.prompt})
    for stage, figures in result.stages.items():
        journal.metrics(0, {f"benchmark/{stage}/{key}": value for key, value in figures.items()})
    journal.image("contact_sheet", 0, picture)
    journal.end("FINISHED")
    journal.send(place)


def write_sheet(name: str, picture: Image.Image) -> np.ndarray:
    """docs/benchmark-<name>.png; its pixels."""
    with disk_errors_in_one_line(DOCS):
        DOCS.mkdir(exist_ok=True)
        picture.save(DOCS / f"benchmark-{name}.png")
    return np.asarray(picture)


def write_report(
    results: Results, setting: Setting, overheads: Sequence[Overhead], rasterizers: Sequence[Rasterizers], keep_prompts: bool
) -> Path:
    """docs/benchmarks.md; its path. keep_prompts: those of the page so far stay, with their date and setting."""
    page = DOCS / "benchmarks.md"
    with disk_errors_in_one_line(DOCS):
        DOCS.mkdir(exist_ok=True)
        before = page.read_text() if keep_prompts and page.is_file() else ""
        page.write_text(report_text(results, setting, overheads, before, rasterizers))
    return page


def setting_of(config: Config, overrides: tuple[str, ...], objects: Path, n_names: int) -> Setting:
    """What the report says of machine and settings."""
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    return Setting(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine_line(device),
        versions=versions_line(),
        preset=config.preset,
        overrides=overrides,
        seed=config.seed,
        threads=config.threads,
        objects=str(objects),
        names=n_names,
        remarks=remarks_of(objects),
    )
