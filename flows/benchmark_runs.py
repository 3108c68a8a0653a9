"""One object, or one prompt, of a benchmark: the ordinary pipeline, then the measurements."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.metrics.alignment import load_alignment
from dreampolish.metrics.retrieval import candidate_texts, right_texts
from dreampolish.pictures import read_picture, sheet
from flows.benchmark_measures import SHOWN, Truth, measured, true_mesh, truth_of
from flows.benchmark_memory import memory_path, recalled, remember
from flows.benchmark_results import MEASURED, ObjectResult, PromptResult
from flows.benchmark_subjects import Subject, framing_settings, reference_picture
from flows.lines import say
from flows.runs import new_run
from flows.text_to_3d import text_to_3d
from schemas.artifacts import StageName
from schemas.runs import RunRecord
from stages.artifact_files import StoredFiles
from stages.determinism import device_from_name
from stages.entry import context_of, open_recorded
from stages.opened import open_artifact
from stages.run_record import read_record
from stages.store import LocalStore

Row = tuple[str, Float[Tensor, "n h w 3"]]


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
    measured_before = memory_path(
        pipeline.store,
        "flows.benchmark_measures",
        {
            "object": hashlib.sha256(subject.glb.read_bytes()).hexdigest(),
            "elevation_deg": subject.elevation_deg,
            "stages": {name: record.stages[name].fingerprint for name in MEASURED},
        },
    )
    known, kept_sheet = recalled(measured_before), measured_before.with_suffix(".png")
    if known is not None and kept_sheet.is_file():
        say("  measured before")
        with Image.open(kept_sheet) as kept:
            return ObjectResult(subject.name, subject.prompt, record.run, known["stages"]), kept.convert("RGB")
    stages, contact_sheet = _all_stages(pipeline, record, truth_of(mesh, subject.elevation_deg))
    kept_sheet.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet.save(kept_sheet)
    remember(measured_before, {"stages": stages})
    return ObjectResult(subject.name, subject.prompt, record.run, stages), contact_sheet


def _all_stages(pipeline: Pipeline, record: RunRecord, truth: Truth) -> tuple[dict[StageName, dict[str, float]], Image.Image]:
    rows: list[Row] = [("truth", truth.views.rgb[list(SHOWN)].cpu())]
    stages = {}
    for name in MEASURED:
        stages[name], pictures = one_stage(pipeline, record, name, truth)
        rows.append((name, pictures))
        shown = ("psnr", "mask_iou", "chamfer", "f_score")
        say(f"  against the truth: {name:<8} " + "  ".join(f"{key} {stages[name][key]:.3g}" for key in shown))
    return stages, sheet(rows, 1)


def one_stage(
    pipeline: Pipeline, record: RunRecord, name: StageName, truth: Truth
) -> tuple[dict[str, float], Float[Tensor, "n h w 3"]]:
    """A stage's figures against the truth, with its alignment and its costs, and its pictures."""
    files = StoredFiles(LocalStore(pipeline.store), pipeline.torch_device)
    artifact = open_recorded(name, record, pipeline.store)
    figures, pictures = measured(open_artifact(artifact, record.config, files), truth)
    if "alignment" in artifact.metrics:
        figures["alignment"] = artifact.metrics["alignment"]
    costs = {"seconds": artifact.seconds, "peak_memory_gib": artifact.peak_memory / 2**30}
    return {**figures, **costs}, pictures


def one_prompt(pipeline: Pipeline, place: int, prompts: Sequence[str], names: Sequence[str]) -> PromptResult:
    """Run a prompt and ask the judge what each view of the asset shows, among all prompts and names.

    place: the prompt's, among `prompts`.
    """
    record = pipeline.run(prompts[place], [], None)
    run = context_of(record, pipeline.store, None, False)
    judge = load_alignment(Path(run.prior_folder(run.priors.judge.source)))
    texts = candidate_texts(prompts, names)
    scores = judge.embed_images(final_views(pipeline, record)) @ judge.embed_texts(texts).T
    nearest = scores.argmax(dim=1)
    right = right_texts(prompts, names)[place]
    return PromptResult(
        prompt=prompts[place],
        run=record.run,
        hits=int(right[nearest].sum()),
        views=len(nearest),
        nearest=texts[Counter(nearest.tolist()).most_common(1)[0][0]],
        alignment=float(scores[:, place].mean()),
    )


def final_views(pipeline: Pipeline, record: RunRecord) -> Float[Tensor, "n 3 h w"]:
    """The asset's turntable views."""
    asset = open_recorded("export", record, pipeline.store)
    files = StoredFiles(LocalStore(pipeline.store), torch.device("cpu"))
    views = [read_picture(files.locate(asset, preview))[..., :3] for preview in asset.previews]
    return torch.stack(views).permute(0, 3, 1, 2)
