"""The assets of a benchmark's runs: what the validator says, their size, and whether two renderers see in the file what the stage saw."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from dreampolish.metrics.pictures import psnr
from dreampolish.scene.cameras import turntable_cameras
from flows.benchmark.assets.browser import BrowserError, module_folders, render_in_browser, tool_versions
from flows.benchmark.stages import memory_path, recalled, remember
from flows.runs.files.validate import findings_of
from schemas.artifacts import AssetArtifact, TexturedMeshArtifact
from schemas.runs import RunRecord
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.files import StoredFiles
from stages.results.surfaces import open_artifact
from stages.runtime.command import open_recorded
from stages.runtime.records import read_record

N_VIEWS = 8
SIZE = 256
ELEVATION_DEG = 15.0
LEAST_AGREEMENT_DB = 32.0
HIGHEST_PSNR = 99.0
"""Stands for infinity."""


@dataclass(frozen=True)
class Agreement:
    """PSNR over views, dB: mean and least."""

    mean: float
    least: float


@dataclass(frozen=True)
class AssetResult:
    """One asset. browser, normals: None where the browser could not draw; `note` then says why."""

    name: str
    run: str
    checker: str
    errors: int
    warnings: int
    megabytes: float
    triangles: int
    ours: Agreement
    browser: Agreement | None
    normals: Agreement | None
    note: str

    @property
    def least_agreement(self) -> float:
        """The worst view's PSNR over both renderers, as far as they drew."""
        return min(entry.least for entry in (self.ours, self.browser) if entry is not None)


def asset_result(name: str, run: str, files: StoredFiles) -> AssetResult:
    """Check and draw a run's asset, if that was not done before. Raises StageError where the run has none."""
    record = read_record(files.store.root, run)
    fingerprints = {stage: record.stages[stage].fingerprint for stage in ("texture", "export") if stage in record.stages}
    path = memory_path(files.store.root, "flows.benchmark.assets.checks", {"stages": fingerprints, "tools": tool_versions()})
    if (known := _recalled(path)) is not None:
        return replace(known, name=name, run=run)
    found = _examined(name, record, files)
    if found.browser is not None:
        # A browser may be there next time.
        remember(path, asdict(found))
    return found


def _recalled(path: Path) -> AssetResult | None:
    """None where it is missing or damaged."""
    try:
        return TypeAdapter(AssetResult).validate_python(recalled(path))
    except ValidationError:
        return None


def _examined(name: str, record: RunRecord, files: StoredFiles) -> AssetResult:
    store = files.store.root
    asset, texture = open_recorded(AssetArtifact, record, store), open_recorded(TexturedMeshArtifact, record, store)
    glb = files.locate(asset, asset.glb)
    cameras = turntable_cameras(N_VIEWS, ELEVATION_DEG, REFERENCE_FOV_DEG, SIZE).to(files.device)
    source = open_artifact(texture, record.config.texture, files).render(cameras)
    ours = open_artifact(asset, record.config.export, files).render(cameras)
    browser, normals, note = None, None, ""
    try:
        colors = render_in_browser(glb, cameras, asset.metres_per_unit, "colors")[0].to(files.device)
        shown = render_in_browser(glb, cameras, asset.metres_per_unit, "normals")[0].to(files.device)
        browser = agreement(colors, source.rgb)
        normals = agreement(*inner_normals(shown, source.normals_camera, source.alpha))
    except BrowserError as error:
        note = str(error)
    found = findings_of(glb, module_folders())
    return AssetResult(
        name=name,
        run=record.run,
        checker=found.checker,
        errors=len(found.errors),
        warnings=len(found.warnings),
        megabytes=asset.glb_bytes / 1e6,
        triangles=asset.n_faces,
        ours=agreement(ours.rgb, source.rgb),
        browser=browser,
        normals=normals,
        note=note,
    )


def agreement(views: Float[Tensor, "b h w 3"], truth: Float[Tensor, "b h w 3"]) -> Agreement:
    """PSNR of each view."""
    decibels = psnr(views, truth).clamp(max=HIGHEST_PSNR)
    return Agreement(float(decibels.mean()), float(decibels.min()))


def inner_normals(
    shown: Float[Tensor, "b h w 3"], normals: Float[Tensor, "b h w 3"], alpha: Float[Tensor, "b h w"]
) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w 3"]]:
    """Both as pictures, (n + 1) / 2, white where the surface does not fill the pixel: the colours compare silhouettes."""
    inside = alpha[..., None] > 0.999
    white = torch.ones_like(shown)
    return torch.where(inside, shown, white), torch.where(inside, (normals + 1) / 2, white)
