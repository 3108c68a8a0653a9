"""One object, or one prompt, of a benchmark: the ordinary pipeline, then the measurements."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.metrics.judge import load_alignment
from dreampolish.metrics.retrieval import candidate_texts, right_texts
from dreampolish.scene.pictures import read_picture, resize
from flows.benchmark.stages import figures_of
from flows.benchmark.statistics import ObjectResult, PromptResult
from flows.benchmark.subjects import Subject, framing_settings, reference_picture
from flows.benchmark.truth import SIZE, true_mesh
from flows.report.facts import view_paths
from flows.runs.console import say
from flows.runs.create import new_run
from flows.text_to_3d import text_to_3d
from schemas.runs import RunRecord
from stages.results.files import StoredFiles
from stages.runtime.context import context_of, device_from_name
from stages.runtime.records import read_record
from stages.runtime.store import LocalStore


@dataclass(frozen=True)
class Pipeline:
    """How a benchmark's runs are made."""

    store: Path
    preset: str
    overrides: tuple[str, ...]
    device: str

    def run(self, prompt: str, settings: Sequence[str], image: Path | None) -> RunRecord:
        """A whole run as `dreampolish run` makes it; what the store holds already is taken from there."""
        record = new_run(self.store, prompt, self.preset, [*settings, *self.overrides], image)
        text_to_3d(prompt=prompt, run=record.run, show_progress=True)
        return read_record(self.store, record.run)

    @property
    def torch_device(self) -> torch.device:
        """Where results are rendered."""
        return device_from_name(self.device)


def one_object(pipeline: Pipeline, subject: Subject) -> tuple[ObjectResult, Image.Image]:
    """Run the pipeline on the true front picture and measure every stage, as far as that was not done before; with a contact sheet."""
    mesh = true_mesh(subject.glb, pipeline.torch_device)
    with tempfile.TemporaryDirectory() as folder:
        picture = reference_picture(subject, mesh, Path(folder))
        record = pipeline.run(subject.prompt, framing_settings(subject), picture)
    files = StoredFiles(LocalStore(pipeline.store), pipeline.torch_device)
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
    run = context_of(record, pipeline.store, None, show_progress=False)
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
    """The asset's turntable views, no larger than the pictures that the judge was taught on: its word depends on their size."""
    views = [read_picture(path)[..., :3] for path in view_paths("export", record, LocalStore(pipeline.store))]
    pictures = torch.stack(views)
    return resize(pictures, min(SIZE, pictures.shape[1])).permute(0, 3, 1, 2)
