"""All stages of one run against the truth: measured once, and remembered with the contact sheet."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.scene.pictures import sheet
from flows.benchmark.truth import SHOWN, Truth, in_one_color, mean_color, measured, true_mesh, truth_of
from schemas.artifacts import Artifact, StageName, artifact_class_of
from schemas.runs import STAGES, RunRecord, StageRecord
from stages.guidance.priors import alignment
from stages.results.files import StoredFiles
from stages.results.scores import render_previews
from stages.results.surfaces import ViewableResult, open_artifact
from stages.runtime.command import open_recorded
from stages.runtime.context import context_of
from stages.runtime.files import PROJECT
from stages.runtime.keys.code import code_of_module

MEASURED: tuple[StageName, ...] = tuple(name for name in STAGES if name != "reference")
"""Stages whose results have a shape."""

Row = StageName | Literal["untextured"]
"""What has figures: a stage's result, or the mesh before its texture all in one colour, the mean one of its true front picture."""

_TEXTURE = MEASURED.index("texture")
ROWS: tuple[Row, ...] = (*MEASURED[:_TEXTURE], "untextured", *MEASURED[_TEXTURE:])

Figures = dict[Row, dict[str, float]]


def figures_of(record: RunRecord, files: StoredFiles, glb: Path, elevation_deg: float) -> tuple[Figures, Image.Image]:
    """Every stage's figures and the contact sheet under the true object's pictures.

    glb: the true object. elevation_deg: of its reference picture. What was measured before, by the same code, is recalled; alignment
    and costs of stages are always the artifacts' own.
    """
    kept = memory_path(
        files.store.root,
        "flows.benchmark.stages",
        {
            "object": hashlib.sha256(glb.read_bytes()).hexdigest(),
            "elevation_deg": elevation_deg,
            "device": files.device.type,
            "stages": {name: record.stages[name].fingerprint for name in MEASURED},
        },
    )
    found = _recalled(kept)
    if found is None:
        found = _measured(record, files, truth_of(true_mesh(glb, files.device), elevation_deg))
        _remember(kept, *found)
    figures, contact_sheet = found
    own = {
        name: _own_figures(record.stages[name], open_recorded(artifact_class_of(name), record, files.store.root))
        for name in MEASURED
    }
    return {row: {**figures[row], **(own[row] if row != "untextured" else {})} for row in ROWS}, contact_sheet


def _measured(record: RunRecord, files: StoredFiles, truth: Truth) -> tuple[Figures, Image.Image]:
    rows: list[tuple[str, Float[Tensor, "n h w 3"]]] = [("truth", truth.views.rgb[list(SHOWN)].cpu())]
    figures: Figures = {}
    for name in MEASURED:
        artifact = open_recorded(artifact_class_of(name), record, files.store.root)
        opened = open_artifact(artifact, getattr(record.config, artifact.stage), files)
        figures[name], pictures = measured(opened, truth)
        rows.append((name, pictures))
        if name == MEASURED[_TEXTURE - 1]:
            figures["untextured"] = _without_texture(opened, record, files, truth)
    return figures, sheet(rows, 1)


def _without_texture(painted: ViewableResult, record: RunRecord, files: StoredFiles, truth: Truth) -> dict[str, float]:
    """The figures of a mesh in the mean colour of the true front picture."""
    plain = in_one_color(painted, mean_color(truth.front_view))
    views = render_previews(record.config.texture.preview, lambda cameras: plain.render(cameras).rgb, files.device)
    run = context_of(record, files.store.root, tracking_uri=None, show_progress=False)
    return {**measured(plain, truth)[0], "alignment": alignment(run, record.prompt, views)}


def _own_figures(entry: StageRecord, artifact: Artifact) -> dict[str, float]:
    """What the run says of a stage: alignment, where it has one, and costs."""
    costs = {"seconds": artifact.seconds, "peak_memory_gib": artifact.peak_memory / 2**30}
    return {**{key: value for key, value in entry.metrics.items() if key == "alignment"}, **costs}


def _remember(path: Path, figures: Figures, contact_sheet: Image.Image) -> None:
    """The figures go last: with them the sheet is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet.save(path.with_suffix(".png"))
    remember(path, {"stages": figures})


def _recalled(path: Path) -> tuple[Figures, Image.Image] | None:
    """None where one of both is missing or damaged."""
    figures = (recalled(path) or {}).get("stages")
    if not isinstance(figures, dict) or set(figures) != set(ROWS):
        return None
    try:
        with Image.open(path.with_suffix(".png")) as kept:
            return figures, kept.convert("RGB")
    except (OSError, SyntaxError):
        # Pillow's PNG reader raises SyntaxError for a broken chunk.
        return None


LIBRARIES = ("torch", "numpy", "scipy", "trimesh", "embreex", "pillow", "scikit-image")
"""What figures and pictures are computed with: a new version measures anew."""


def memory_path(store: Path, module: str, measured: Mapping[str, Any]) -> Path:
    """Where a measurement's figures lie or would lie.

    module: what measures; its code and that of all it imports count. measured: JSON values that say what is measured.
    """
    versions = {name: version(name) for name in LIBRARIES}
    known = json.dumps(
        {**measured, "code": code_of_module(module, PROJECT).digest, "module": module, "versions": versions}, sort_keys=True
    )
    return store / "measured" / f"{hashlib.sha256(known.encode()).hexdigest()}.json"


def recalled(path: Path) -> dict[str, Any] | None:
    """The figures of an earlier measurement; None where there are none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def remember(path: Path, figures: Mapping[str, Any]) -> None:
    """Keep a measurement's figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(figures).encode())
