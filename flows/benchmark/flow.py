"""The flow `benchmark`: objects whose true shape is known go through the pipeline, and every stage's result is measured."""

import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from prefect import flow
from torch import Tensor

from dreampolish.metrics.judge import load_alignment
from dreampolish.metrics.retrieval import candidate_texts, right_texts
from dreampolish.optim.fit import FitInterruptedError
from dreampolish.scene.pictures import read_picture, resize
from flows.benchmark.assets.checks import asset_result
from flows.benchmark.overhead import read_overheads
from flows.benchmark.page import DOCS, DOCS_ELSEWHERE, setting_of, write_report, write_sheet
from flows.benchmark.rasterizers import read_rasterizers
from flows.benchmark.stages import figures_of
from flows.benchmark.statistics import Failure, ObjectResult, PromptResult, Results, one_line, r_precision, stage_means
from flows.benchmark.subjects import (
    Subject,
    data_of,
    found_subjects,
    framing_settings,
    held_out_names,
    left_out,
    prompts_of,
    reference_picture,
)
from flows.benchmark.truth import SIZE, true_mesh
from flows.report.facts import view_paths
from flows.runs.console import say
from flows.runs.create import check_priors, new_id, new_run
from flows.runs.parameters import Overrides, Preset, override_lines
from flows.runs.roots import deployed, located
from flows.service.marks import at_work
from flows.text_to_3d import text_to_3d
from schemas.config.presets import load_config
from schemas.config.run import Config
from schemas.runs import RunRecord
from stages.results.files import StoredFiles
from stages.runtime.context import context_of, device_from_name
from stages.runtime.files import CONFIGS, for_the_user, store_folder, try_folder
from stages.runtime.records import read_record
from stages.runtime.shared.stores import store_at
from stages.runtime.signals import stop_on_signals
from stages.runtime.tracking.files import PARENT_JOURNAL
from stages.runtime.tracking.journal import Journal, Place, place_from_store

T = TypeVar("T")


@dataclass(frozen=True)
class Pipeline:
    """How a benchmark's runs are made."""

    store: Path
    preset: str
    overrides: tuple[str, ...]
    device: str

    def run(self, prompt: str, settings: Sequence[str], image: Path | None) -> RunRecord:
        """A whole run as `dreampolish run` makes it; what the store holds already is taken from there."""
        record = new_run(self.store, prompt, self.preset, [*settings, *self.overrides], image=image)
        text_to_3d(prompt=prompt, preset=self.preset, run=record.run, show_progress=True)
        return read_record(self.store, record.run)

    @property
    def torch_device(self) -> torch.device:
        """Where results are rendered."""
        return device_from_name(self.device)


@flow(name="dreampolish", flow_run_name="benchmark", persist_result=False, log_prints=False)
@at_work
def benchmark(
    objects: Path = Path("benchmark/objects"),
    preset: Preset = "home",
    overrides: Overrides = None,
    only: list[str] | None = None,
    with_prompts: bool = True,
) -> dict[str, Any]:
    """Run and measure every object, then the prompts; write docs/benchmarks/index.md and a contact sheet an object beside it.

    What the store holds already is not computed again, nor measured again while the measuring code is the same.

    objects: a folder of GLBs, or of folders with mesh.glb, reference.png and attribution.json; its remarks.txt is shown on the page. A
    deployment takes one under a root (flows/runs/roots.py).
    only: names of objects to take. One object's failure does not end the others; the result's `failures` names them. Raises ConfigError
    for what cannot begin.
    """
    store, changed = store_folder(), tuple(override_lines(overrides))
    config = load_config(preset, CONFIGS, changed)
    check_priors(config)
    objects = located(objects, "objects") if deployed() else objects
    subjects = found_subjects(objects, only or [], config.reference.elevation_deg)
    prompts = prompts_of(objects) if with_prompts else []
    if others := left_out(objects):
        say(f"left out: {', '.join(others[:8])}{' and more' * (len(others) > 8)}; objects are <name>.glb or <name>/mesh.glb")
    with for_the_user():
        try_folder(DOCS, DOCS_ELSEWHERE)
    names = held_out_names()
    overheads, rasterizers = read_overheads(store), read_rasterizers(store)
    pipeline = Pipeline(store, preset, changed, config.device)
    place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
    folder, results, status = store / "journals" / f"benchmark-{new_id()}", Results(), "FAILED"
    journal = _open_journal(folder, config, objects, subjects)
    try:
        # Held over all runs, so that a signal in the last moments of one keeps the next from beginning.
        with stop_on_signals():
            _measure_objects(pipeline, subjects, results, folder=folder, place=place)
            _measure_prompts(pipeline, prompts, names, results)
        journal.metrics(0, mean_figures(results))
        setting = setting_of(config, changed, objects, len(names))
        page = write_report(results, setting, overheads, rasterizers, keep_prompts=not with_prompts)
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
        done = _isolated(prompt, results, partial(one_prompt, pipeline=pipeline, place=number, prompts=prompts, names=names))
        if done is not None:
            results.prompts.append(done)
            say(f"  the judge takes {done.hits} of {done.views} views for it, most for: {done.nearest}")
            _measure_asset(pipeline, prompt, done.run, results)


def _measure_asset(pipeline: Pipeline, name: str, run: str, results: Results) -> None:
    files = StoredFiles(store_at(pipeline.store), pipeline.torch_device)
    found = _isolated(f"{name}, its asset", results, partial(asset_result, name, run, files))
    if found is not None:
        results.assets.append(found)
        say(f"  asset: {found.errors} errors, {found.warnings} warnings, {found.megabytes:.2f} MB, {found.ours.mean:.1f} dB")


def _isolated(name: str, results: Results, work: Callable[[], T]) -> T | None:
    """Do one object's work; a failure is noted and shown, and None returned. A stop that the user asked for goes through."""
    try:
        return work()
    except FitInterruptedError:
        raise
    except Exception as error:
        # Whatever goes wrong with one object, the others still count.
        results.failures.append(Failure(name, one_line(error)))
        say(f"  failed: {one_line(error)}")
        return None


def one_object(pipeline: Pipeline, subject: Subject) -> tuple[ObjectResult, Image.Image]:
    """Run the pipeline on the true front picture and measure every stage, as far as that was not done before; with a contact sheet."""
    mesh = true_mesh(subject.glb, pipeline.torch_device)
    with tempfile.TemporaryDirectory() as folder:
        picture = reference_picture(subject, mesh, Path(folder))
        record = pipeline.run(subject.prompt, framing_settings(subject), picture)
    files = StoredFiles(store_at(pipeline.store), pipeline.torch_device)
    stages, contact_sheet = figures_of(record, files, subject.glb, subject.elevation_deg)
    for name, figures in stages.items():
        shown = ("psnr", "mask_iou", "chamfer", "f_score")
        say(f"  against the truth: {name:<10} " + "  ".join(f"{key} {figures[key]:.3g}" for key in shown))
    return ObjectResult(subject.name, subject.prompt, record.run, stages), contact_sheet


def one_prompt(pipeline: Pipeline, place: int, prompts: Sequence[str], names: Sequence[str]) -> PromptResult:
    """Run a prompt and ask the judge what each view of the asset shows, among all prompts and names.

    place: the prompt's, among `prompts`. The result's alignment is the asset's own.
    """
    record = pipeline.run(prompts[place], [], None)
    run = context_of(record, pipeline.store, tracking_uri=None, show_progress=False)
    judge = load_alignment(Path(run.prior_folder(run.priors.judge.source)))
    texts = candidate_texts(prompts, names)
    nearest = (judge.embed_images(final_views(pipeline, record)) @ judge.embed_texts(texts).T).argmax(dim=1)
    right = right_texts(prompts, names)[place]
    return PromptResult(
        prompt=prompts[place],
        run=record.run,
        hits=int(right[nearest].sum()),
        views=len(nearest),
        nearest=texts[Counter(nearest.tolist()).most_common(1)[0][0]],
        alignment=record.stages["export"].metrics["alignment"],
    )


def final_views(pipeline: Pipeline, record: RunRecord) -> Float[Tensor, "n 3 h w"]:
    """The asset's turntable views, no larger than the pictures that the judge was trained on: its answer depends on their size."""
    views = [read_picture(path)[..., :3] for path in view_paths("export", record, store_at(pipeline.store))]
    pictures = torch.stack(views)
    return resize(pictures, min(SIZE, pictures.shape[1])).permute(0, 3, 1, 2)


def mean_figures(results: Results) -> dict[str, float]:
    """What the parent run at the tracker gets: benchmark/<stage>/<figure> as means over the objects, and the R-precision."""
    means = stage_means(results.objects).stack()
    found = {f"benchmark/{stage}/{key}": float(value) for (stage, key), value in means.items()}
    found["benchmark/r_precision"] = r_precision(results.prompts)
    found["benchmark/failures"] = float(len(results.failures))
    return {key: value for key, value in found.items() if not math.isnan(value)}


def _open_journal(folder: Path, config: Config, objects: Path, subjects: Sequence[Subject]) -> Journal:
    tags = {"preset": config.preset, "seed": str(config.seed), "objects": str(objects)}
    journal = Journal(folder, PARENT_JOURNAL, f"benchmark of {len(subjects)} objects", tags)
    journal.params(config.model_dump(mode="json"))
    for data in data_of(subjects):
        journal.reads(data)
    return journal


def _log_object(result: ObjectResult, picture: np.ndarray, folder: Path, place: Place) -> None:
    """One object's figures and contact sheet, as a child of the benchmark's run."""
    journal = Journal(folder, result.name, result.name, {"dreampolish.run": result.run, "prompt": result.prompt})
    for stage, figures in result.stages.items():
        journal.metrics(0, {f"benchmark/{stage}/{key}": value for key, value in figures.items()})
    journal.image("contact_sheet", 0, picture)
    journal.end("FINISHED")
    journal.send(place)
