"""The facts of a run that its page shows, from its record, its artifacts and its journals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.report.curves import Curve, curves_of_stage, was_computed_by
from flows.report.settings import Change, Command, changes_from_default, making_command, varying_commands
from flows.report.strips import Strip, cut_out_uri, picture_uri, small_picture_uri, strip_of_views
from schemas.artifacts import (
    Artifact,
    AssetArtifact,
    IntakeArtifact,
    NerfArtifact,
    ReferenceArtifact,
    SdfArtifact,
    StageName,
    artifact_class_of,
)
from schemas.runs import ALL_STAGES, TITLES, RunRecord
from stages.runtime.command import input_path, open_recorded, open_scores
from stages.runtime.errors import StageError
from stages.runtime.shared.stores import store_at
from stages.runtime.store import LocalStore


@dataclass(frozen=True)
class StageFacts:
    """One stage of a run. `state`: computed, cached, resumed, or reused where the run took another run's result over."""

    name: StageName
    title: str
    state: str
    seconds: float
    """Of this run: near 0 when cached."""
    seconds_computing: float
    """When the result was computed."""
    peak_memory: int
    metrics: dict[str, float]
    notes: tuple[str, ...]
    """Why the stage handed over, and what else a reader should hear."""
    fingerprint: str
    parents: dict[str, str]
    strip: Strip | None
    curves: dict[str, Curve]


@dataclass(frozen=True)
class GivenView:
    """A user's picture, and the object cut out of it, as data URIs; `given`: None where the store no longer has it. pose: azimuth and
    elevation, degrees, as they were used."""

    pose: str
    given: str | None
    cut_out: str


@dataclass(frozen=True)
class RunFacts:
    """A run as its page shows it. `glb`: None until the asset is made."""

    record: RunRecord
    stages: tuple[StageFacts, ...]
    glb: bytes | None
    candidates: str | None
    """All pictures that the text prior drew for the reference, as a data URI; None for a user's picture."""
    pictures: tuple[GivenView, ...]
    """The user's own pictures, the front first."""
    changes: tuple[Change, ...]
    making: Command
    varying: tuple[Command, ...]

    @property
    def seconds(self) -> float:
        """Of all stages, each when its result was computed."""
        return sum(stage.seconds_computing for stage in self.stages)

    @property
    def peak_memory(self) -> int:
        """Bytes; of the stage that took most."""
        return max((stage.peak_memory for stage in self.stages), default=0)

    def metric(self, name: str) -> float | None:
        """A figure of the last stage that has it."""
        return next((stage.metrics[name] for stage in reversed(self.stages) if name in stage.metrics), None)


def facts_of_run(record: RunRecord, artifacts: Mapping[StageName, Artifact], store: LocalStore, max_side: int) -> RunFacts:
    """Gather. artifacts: verified ones of the run, those it has. max_side: pixels of the turntables' views."""
    asset = artifacts.get("export")
    return RunFacts(
        record=record,
        stages=tuple(
            _stage(record=record, name=name, artifact=artifacts[name], store=store, max_side=max_side)
            for name in ALL_STAGES
            if name in artifacts
        ),
        glb=_path(store, asset, asset.glb.path).read_bytes() if isinstance(asset, AssetArtifact) else None,
        candidates=None if (drawn := candidates_path(artifacts, store)) is None else picture_uri(drawn),
        pictures=tuple(_given_views(record, artifacts, store)),
        changes=tuple(changes_from_default(record.config)),
        making=making_command(record, store.root),
        varying=tuple(varying_commands(record, store.root)),
    )


def candidates_path(artifacts: Mapping[StageName, Artifact], store: LocalStore) -> Path | None:
    """Where the sheet of candidates for the reference lies; None for a user's picture, or before there is a reference."""
    reference = artifacts.get("reference")
    if not isinstance(reference, ReferenceArtifact) or reference.candidates is None:
        return None
    return _path(store, reference, reference.candidates.path)


def _given_views(record: RunRecord, artifacts: Mapping[StageName, Artifact], store: LocalStore) -> Iterator[GivenView]:
    reference = artifacts.get("reference")
    if record.image is None or not isinstance(reference, ReferenceArtifact):
        return
    digests = [record.image, *(each.image for each in record.others)]
    used = [(0.0, reference.elevation_deg, reference.image_rgba)]
    used += [(each.azimuth_deg, each.elevation_deg, each.image_rgba) for each in reference.others]
    for digest, (azimuth, elevation, cut_out) in zip(digests, used, strict=True):
        given = input_path(store.root, digest)
        yield GivenView(
            pose=f"{azimuth:.4g}°, {elevation:.4g}°",
            given=small_picture_uri(given, GIVEN_SIDE) if given.is_file() else None,
            cut_out=cut_out_uri(_path(store, reference, cut_out.path)),
        )


def _stage(record: RunRecord, name: StageName, artifact: Artifact, store: LocalStore, max_side: int) -> StageFacts:
    entry = record.stages[name]
    views = view_paths(entry.name, record, store)
    own = record.parent_run is None or was_computed_by(store.root, record.run, name, artifact.fingerprint)
    return StageFacts(
        name=name,
        title=TITLES[name],
        state=entry.state if own else "reused",
        seconds=entry.seconds if own else 0.0,
        seconds_computing=artifact.seconds,
        peak_memory=artifact.peak_memory,
        metrics=dict(entry.metrics),
        notes=_notes(artifact),
        fingerprint=artifact.fingerprint,
        parents=dict(artifact.parents),
        strip=strip_of_views(views, max_side) if views else None,
        curves=curves_of_stage(store.root, record.run, name, artifact.fingerprint),
    )


def _notes(artifact: Artifact) -> tuple[str, ...]:
    """The reason for handing over, then the artifact's own notes, without repetition."""
    reasons = (artifact.switch_reason,) if isinstance(artifact, NerfArtifact | SdfArtifact) else ()
    return tuple(dict.fromkeys([*reasons, *artifact.notes]))


def _path(store: LocalStore, artifact: Artifact, relative: str) -> Path:
    return store.folder(artifact.stage, artifact.fingerprint) / relative


MAX_SIDE = 320
"""Pixels of a turntable's views on a page of one run."""
GIVEN_SIDE = 256
"""Pixels of the longest side of a user's own picture on a page."""
COMPARED_SIDE = 224
"""The same on a page of several."""


def open_facts(record: RunRecord, store: Path, max_side: int) -> RunFacts:
    """The facts of a run, every file verified. Raises StageError for a run without results or with damaged ones."""
    if not record.stages:
        raise StageError(f"run {record.run} has no results yet", None, f"dreampolish resume {record.run}")
    return facts_of_run(record, artifacts_of(record, store), store_at(store), max_side)


def artifacts_of(record: RunRecord, store: Path) -> dict[StageName, Artifact]:
    """Every result that a run has, verified."""
    return {name: open_recorded(artifact_class_of(name), record, store) for name in ALL_STAGES if name in record.stages}


def view_paths(name: StageName, record: RunRecord, store: LocalStore) -> list[Path]:
    """The pictures of a run's stage: the reference, or the turntable's views."""
    if name not in record.stages:
        return []
    if name == "reference":
        reference = open_recorded(ReferenceArtifact, record, store.root)
        return [_path(store, reference, reference.image.path)]
    if name == "intake":
        intake = open_recorded(IntakeArtifact, record, store.root)
        return [_path(store, intake, preview.path) for preview in intake.previews]
    scores = open_scores(name, record, store.root)
    return [] if scores is None else [_path(store, scores, preview.path) for preview in scores.previews]


def sheet_paths(name: StageName, record: RunRecord, store: LocalStore) -> list[Path]:
    """What a contact sheet shows of a stage: its views, and of the reference all of the user's pictures, cut out."""
    if name != "reference" or not record.others or name not in record.stages:
        return view_paths(name, record, store)
    reference = open_recorded(ReferenceArtifact, record, store.root)
    images = [reference.image, *(each.image for each in reference.others)]
    return [_path(store, reference, image.path) for image in images]
