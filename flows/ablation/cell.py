"""One cell of a study: the ordinary stages up to the one that is measured, its figures, and its run at the tracker."""

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from prefect import flow
from torch import Tensor

from dreampolish.optim.fit import FitInterruptedError
from dreampolish.scene.pictures import read_picture
from flows.ablation.figures import Judge, figures_of
from flows.ablation.plan import Cell, Plan
from flows.ablation.roughened import in_true_frame, rough_glb
from flows.ablation.statistics import CellResult, StageResult
from flows.benchmark.subjects import REFERENCE_SIZE, Subject, reference_picture
from flows.benchmark.truth import Truth, bare_glb, picture_camera, true_mesh, truth_of, write_picture_from
from flows.report.settings import changes, text
from flows.runs.chain import CHAIN
from flows.runs.create import now
from flows.runs.given_mesh import keep_mesh
from flows.runs.inputs import keep_image
from schemas.artifacts import Artifact, ReferenceArtifact, StageName
from schemas.config.run import Config
from schemas.runs import OtherPicture, RunRecord
from stages.results.files import StoredFiles
from stages.results.surfaces import open_artifact
from stages.runtime.command import arguments_from_record
from stages.runtime.context import context_of, device_from_name
from stages.runtime.records import read_record, record_path, write_record
from stages.runtime.shared.stores import store_at
from stages.runtime.tracking.files import PARENT_JOURNAL, PARENT_TAG, entries_of
from stages.runtime.tracking.journal import Journal, Place
from stages.runtime.tracking.live import forget_live
from stages.runtime.tracking.machine import machine_watched
from stages.runtime.tracking.progress import await_sends

FROM_STAGE = {"psnr": "reference_psnr", "ssim": "reference_ssim", "normal_agreement": "normal_agreement"}
"""Figures that the measured stage reports itself, and what they are called in a study."""

OF_SHAPE = ("chamfer", "f_score", "roughness_deg", "normal_angle_deg", "mask_iou", "normal_agreement")
"""Figures that mean something of a mesh that has lost its colours."""

SENDS_S = 20.0
"""For the tracker to take what a cell's stages had left."""


@dataclass
class Workplace:
    """Where a study's cells run, and what they share. truths: by object, rendered when first wanted."""

    plan: Plan
    store: Path
    place: Place
    judge: Judge
    show: bool
    truths: dict[str, Truth] = field(default_factory=dict)

    @property
    def journals(self) -> Path:
        """The folder of all journals' folders."""
        return self.store / "journals"

    @property
    def journal_name(self) -> str:
        """Of the study's own folder of journals."""
        return f"ablation-{self.plan.title}"


@dataclass(frozen=True)
class Shown:
    """A finished cell with its pictures: the fixed views, and the reference picture on white."""

    result: CellResult
    views: Float[Tensor, "n h w 3"]
    reference: Float[Tensor, "h w 3"]


def run_cell(work: Workplace, cell: Cell, config: Config) -> Shown:
    """Run a cell's stages and measure the last one; the figures go to its run at the tracker. Raises what stages raise."""
    record = cell_record(work, cell, config)
    journal = _open_journal(work, cell, record.config)
    status = "KILLED"
    try:
        with machine_watched(journal, work.place):
            artifacts = _stages(work, cell, record)
        record = read_record(work.store, record.run)
        figures, pictures = _measured(work, cell, record=record, artifacts=artifacts)
        result = _result(work, cell, record=record, artifacts=artifacts, figures=figures)
        journal.metrics(0, {**_final(result, record), **best_figures(work.journals, artifacts.values())})
        journal.set_tags({"until": cell.until, **{f"state.{name}": entry.state for name, entry in result.stages.items()}})
        status = "FINISHED"
        forget_live(work.store, record.run)
    except Exception as error:
        status = "KILLED" if isinstance(error, FitInterruptedError) else "FAILED"
        raise
    finally:
        journal.end(status)
        journal.send(work.place)
    return Shown(result, pictures, _reference_picture(work, artifacts["reference"]))


def _reference_picture(work: Workplace, reference: Artifact) -> Float[Tensor, "h w 3"]:
    assert isinstance(reference, ReferenceArtifact)
    files = StoredFiles(store_at(work.store), torch.device("cpu"))
    return read_picture(files.locate(reference, reference.image))[..., :3]


def cell_record(work: Workplace, cell: Cell, config: Config) -> RunRecord:
    """The cell's run: that of an earlier call, or a new one."""
    if record_path(work.store, cell.run).is_file():
        return read_record(work.store, cell.run)
    truth = cell.subject.truth
    rough = cell.subject.roughened > 0
    image = None if truth is None or rough else _kept_picture(work, truth, config)
    others = () if truth is None else _kept_others(work, truth, config, cell.pictures)
    mesh = _kept_mesh(work, truth, cell) if truth is not None and cell.subject.on_true_mesh else None
    record = RunRecord(
        run=cell.run,
        prompt=cell.subject.prompt,
        image=image,
        others=others,
        mesh=mesh,
        mesh_use=cell.subject.use,
        config=config,
        created=now(),
    )
    write_record(work.store, record)
    return record


def _kept_picture(work: Workplace, subject: Subject, config: Config) -> str:
    mesh = true_mesh(subject.glb, device_from_name(config.device))
    with tempfile.TemporaryDirectory() as folder:
        return keep_image(work.store, reference_picture(subject, mesh, Path(folder)), config.reference)


def _kept_others(
    work: Workplace, subject: Subject, config: Config, azimuths_deg: tuple[float, ...]
) -> tuple[OtherPicture, ...]:
    """Pictures of the true mesh from elsewhere, as high as the front's, kept in the store."""
    if not azimuths_deg:
        return ()
    mesh, kept = true_mesh(subject.glb, device_from_name(config.device)), []
    with tempfile.TemporaryDirectory() as folder:
        for azimuth in azimuths_deg:
            file = Path(folder) / f"{azimuth:g}.png"
            write_picture_from(file, mesh, picture_camera(azimuth, subject.elevation_deg, REFERENCE_SIZE))
            digest = keep_image(work.store, file, config.reference, whole=True)
            kept.append(OtherPicture(image=digest, azimuth_deg=azimuth, elevation_deg=subject.elevation_deg))
    return tuple(kept)


def _kept_mesh(work: Workplace, subject: Subject, cell: Cell) -> str:
    """The true mesh without its colours, rough where the study says so, kept in the store as a user's own mesh is; its hash."""
    share = cell.subject.roughened
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{subject.name}.glb"
        file.write_bytes(rough_glb(subject.glb, share, cell.seed) if share else bare_glb(subject.glb))
        return keep_mesh(work.store, file, "").digest


def _open_journal(work: Workplace, cell: Cell, config: Config) -> Journal:
    tags = {
        "ablation": work.plan.study.name,
        "variant": cell.variant,
        "seed": str(cell.seed),
        "prompt": cell.subject.prompt,
        "subject": cell.subject.name,
        "preset": config.preset,
        "dreampolish.run": cell.run,
        PARENT_TAG: work.journal_name,
    }
    if cell.subject.group:
        tags["group"] = cell.subject.group
    journal = Journal(work.journals / cell.run, PARENT_JOURNAL, cell.label, tags)
    if journal.is_new:
        journal.params(config.model_dump(mode="json"))
    return journal


def _stages(work: Workplace, cell: Cell, record: RunRecord) -> dict[StageName, Artifact]:
    """The cell's stages as tasks of a flow run of its own, so that Prefect shows one line a cell."""
    run = context_of(record, work.store, work.place.uri, show_progress=work.show)

    @flow(name="ablation-cell", flow_run_name=cell.label.replace("{", "(").replace("}", ")"), persist_result=False)
    def one_cell() -> Any:
        artifacts: dict[StageName, Artifact] = {}
        for name in cell.stages:
            stage = CHAIN[name]
            artifacts[name] = stage(run, **arguments_from_record(stage, record, work.store, _seen(artifacts)))
        return artifacts

    # Prefect's types do not see through a flow that returns Any.
    found: Any = one_cell()
    await_sends(SENDS_S)
    return dict(found)


def _seen(artifacts: dict[StageName, Artifact]) -> dict[StageName, Artifact]:
    """What a stage finds: where the mesh was given, it stands in for the polished one, and for the one to be polished."""
    given = artifacts.get("intake")
    return artifacts if given is None else {"dmtet": given, "polish": given, **artifacts}


def _measured(
    work: Workplace, cell: Cell, record: RunRecord, artifacts: Mapping[StageName, Artifact]
) -> tuple[dict[str, float], Float[Tensor, "n h w 3"]]:
    config, reported = record.config, record.stages[cell.until].metrics
    device = device_from_name(config.device)
    files = StoredFiles(store_at(work.store), device)
    last = artifacts[cell.until]
    opened = open_artifact(last, getattr(config, cell.until), files)
    if cell.subject.roughened and cell.subject.truth is not None:
        opened = in_true_frame(last, artifacts["intake"], cell.subject.truth.glb, files)
    figures, pictures = figures_of(
        opened,
        artifacts["reference"],
        files=files,
        prompt=cell.subject.prompt,
        judge=work.judge,
        truth=_truth(work, cell, device),
    )
    for key, name in FROM_STAGE.items():
        if key in reported:
            figures.setdefault(name, reported[key])
    if cell.subject.roughened:
        figures = {key: value for key, value in figures.items() if key in OF_SHAPE}
    return figures, pictures


def _truth(work: Workplace, cell: Cell, device: torch.device) -> Truth | None:
    subject = cell.subject.truth
    if subject is None:
        return None
    if subject.name not in work.truths:
        work.truths[subject.name] = truth_of(true_mesh(subject.glb, device), subject.elevation_deg)
    return work.truths[subject.name]


def _result(
    work: Workplace, cell: Cell, record: RunRecord, artifacts: Mapping[StageName, Artifact], figures: dict[str, float]
) -> CellResult:
    """seconds and steps count every stage after the reference, whoever computed it."""
    after = [artifact for name, artifact in artifacts.items() if name != "reference"]
    costs = {
        "seconds": sum(artifact.seconds for artifact in after),
        "steps": float(sum(taken_steps(artifact, record.config) for artifact in after)),
    }
    stages = {
        str(name): StageResult(record.stages[name].state, artifact.seconds, artifact.fingerprint)
        for name, artifact in artifacts.items()
    }
    return described(work, cell, config=record.config, figures={**figures, **costs}, stages=stages, error=None)


def described(
    work: Workplace,
    cell: Cell,
    config: Config | None,
    figures: dict[str, float],
    stages: dict[str, StageResult],
    error: str | None,
) -> CellResult:
    """A cell's result; config and figures are missing where it failed."""
    base = work.plan.configs[work.plan.study.base_name]
    subject = cell.subject
    return CellResult(
        variant=cell.variant,
        subject=subject.name,
        prompt=subject.prompt,
        group=subject.group,
        seed=cell.seed,
        run=cell.run,
        until=cell.until,
        figures=figures,
        stages=stages,
        settings=[] if config is None else differences(base, config),
        error=error,
    )


def differences(base: Config, config: Config) -> list[str]:
    """Settings in which a cell differs from the base variant, seed and framing of the reference left out."""
    named = [(name, value) for name, _, value in changes(base, config)]
    return [f"{name}={text(value)}" for name, value in named if name != "seed" and not name.startswith("reference.")]


def taken_steps(artifact: Artifact, config: Config) -> int:
    """The optimisation steps behind an artifact: those taken where a stage may end early, else those set."""
    own = getattr(artifact, "steps", None)
    return int(own if own is not None else getattr(getattr(config, artifact.stage), "steps", 0))


def _final(result: CellResult, record: RunRecord) -> dict[str, float]:
    by_stage = {f"final/{name}/{key}": value for name, entry in record.stages.items() for key, value in entry.metrics.items()}
    return {**by_stage, **{f"final/{key}": value for key, value in result.figures.items()}}


def best_figures(journals: Path, artifacts: Iterable[Artifact]) -> dict[str, float]:
    """`best/<stage>/<key>` from the stages' own journals, also those of the run that computed what this one found in the store."""
    found: dict[str, float] = {}
    for artifact in artifacts:
        for path in sorted(journals.glob(f"*/{artifact.stage}-{artifact.fingerprint[:12]}.jsonl")):
            for entry in entries_of(path.read_bytes()):
                for key, value in entry.get("metrics", {}).items():
                    kind, _, name = key.partition("/")
                    if kind == "best":
                        full = f"best/{artifact.stage}/{name}"
                        found[full] = max(value, found.get(full, value))
    return found
