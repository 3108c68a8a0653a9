"""More files of a run's asset, from its stored texture: other formats, triangle counts and texture sizes. Nothing upstream is computed."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args

import torch

from dreampolish.assets.asset import Asset
from dreampolish.assets.validate import FORMATS
from dreampolish.assets.writing.obj_ply_stl import write_obj, write_ply, write_stl
from dreampolish.mesh.decimate import decimated
from dreampolish.mesh.topology import without_crumbs
from flows.runs.create import output_folder, slug_from_prompt
from schemas.artifacts import ReferenceArtifact, TexturedMeshArtifact
from schemas.config.export import ExportConfig
from schemas.config.presets import ConfigError
from schemas.config.run import Config
from schemas.runs import RunRecord
from stages.export import MadeAsset, asset_extras, make_asset, packed_glb
from stages.results.files import StoredFiles, load_colors, load_mesh
from stages.runtime.command import open_recorded
from stages.runtime.context import context_of
from stages.runtime.errors import StageError
from stages.runtime.files import OUTPUTS_ELSEWHERE, disk_errors_in_one_line, for_the_user
from stages.runtime.shared.stores import store_at

THIN_MM = 0.8
"""Walls below this are told: two lines of a common nozzle of 0.4 mm. [choice]"""

UNLIMITED_MB = 1000.0
"""The size limit is that of the web's GLB; other formats have none."""


@dataclass(frozen=True)
class Exported:
    """The files written, the first one the asset, its triangles, and what the user should hear."""

    files: tuple[Path, ...]
    triangles: int
    notes: tuple[str, ...]


def checked_format(name: str) -> str:
    """The format's name. Raises ConfigError for one that is not written."""
    if name not in FORMATS:
        raise ConfigError(f"no format {name!r}; there are {', '.join(FORMATS)}")
    return name


def export_run(record: RunRecord, config: Config, store: Path, kind: str, outputs: Path) -> Exported:
    """Write a run's asset in one more format beside what it has; no file is replaced.

    config: the run's, with `export` as wanted. kind: one of FORMATS. Raises StageError where the run has no texture yet.
    """
    reference, texture = open_recorded(ReferenceArtifact, record, store), open_recorded(TexturedMeshArtifact, record, store)
    run = context_of(record, store, None, show_progress=False)
    files = StoredFiles(store_at(store), run.torch_device)
    settings = config.export if kind == "glb" else config.export.model_copy(update={"size_limit_mb": UNLIMITED_MB})
    made = make_asset(
        source=load_mesh(files, texture),
        colors=load_colors(files, texture),
        config=settings,
        name=slug_from_prompt(record.prompt),
        extras=asset_extras(run, reference, texture, None),
    )
    folder = output_folder(record, outputs)
    with for_the_user(), disk_errors_in_one_line(folder, OUTPUTS_ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        path = free_path(folder, settings, len(made.solid.faces), kind)
        written, notes = _written(path, made, settings)
    return Exported(tuple(entry.resolve() for entry in written), len(made.solid.faces), (*made.notes, *notes))


@dataclass(frozen=True)
class PrintWishes:
    """How a run's shape is to be printed: lengths in millimetres."""

    longest_side_mm: float
    flat_base_mm: float


def print_run(record: RunRecord, config: Config, store: Path, kind: str, outputs: Path, wishes: PrintWishes) -> Exported:
    """Write a run's shape as one closed body for a printer, and its certificate beside it; no file is replaced.

    Raises ConfigError for another format than 3mf and stl, StageError where the shape cannot be printed as one body.
    """
    from dreampolish.assets.solids import printing  # manifold3d, which only this wants

    if kind not in get_args(printing.Kind):
        raise ConfigError(f"--print writes 3mf and stl, not {kind}")
    file_kind = cast(printing.Kind, kind)
    reference, texture = open_recorded(ReferenceArtifact, record, store), open_recorded(TexturedMeshArtifact, record, store)
    mesh = load_mesh(StoredFiles(store_at(store), torch.device("cpu")), texture)
    places, corners = without_crumbs(mesh.vertices, mesh.faces, config.export.crumb_share)
    try:
        body = printing.body_of_mesh(
            *decimated(places, corners, config.export.triangle_budget),
            longest_side_mm=wishes.longest_side_mm,
            flat_base_mm=wishes.flat_base_mm,
        )
        content = printing.written(body, file_kind, slug_from_prompt(reference.prompt))
        found = printing.certificate(content, file_kind, body, THIN_MM)
    except printing.PrintError as error:
        raise StageError(str(error), None, "dreampolish export without --print writes the mesh as it is") from error
    folder = output_folder(record, outputs)
    with for_the_user(), disk_errors_in_one_line(folder, OUTPUTS_ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
        path = _free(folder, f"print-{max(found.box_mm):g}mm", kind)
        path.write_bytes(content)
        said = path.with_suffix(f".{kind}.certificate.json")
        facts = {**asdict(found), "file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "run": record.run}
        said.write_text(json.dumps(facts, indent=1) + "\n")
    return Exported((path.resolve(), said.resolve()), found.triangles, tuple(printing.told(found)))


def free_path(folder: Path, settings: ExportConfig, triangles: int, kind: str) -> Path:
    """asset-<quality>-<triangles>[-<texture>].<kind> in a folder, with a number behind it if anything there has that name already."""
    with_maps = "" if kind in ("ply", "stl") else f"-{settings.texture_size}"
    return _free(folder, f"asset-{settings.quality}-{triangles}{with_maps}", kind)


def _free(folder: Path, stem: str, kind: str) -> Path:
    """A name in a folder, with a number behind it if anything there has it already."""
    taken = {path.stem for path in folder.glob(f"{stem}*.{kind}")}
    number = 2
    name = stem
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return folder / f"{name}.{kind}"


def _written(path: Path, made: MadeAsset, settings: ExportConfig) -> tuple[list[Path], tuple[str, ...]]:
    """Write by the ending of the path; files and notes."""
    match path.suffix:
        case ".glb":
            content, notes = packed_glb(made, settings)
            path.write_bytes(content)
            return [path], notes
        case ".obj":
            return write_obj(path, made.asset), ()
        case ".ply":
            return write_ply(path, made.asset), ()
        case ".stl":
            return write_stl(path, made.asset), ()
    return _write_usdz(path, made.asset), ()


def _write_usdz(path: Path, asset: Asset) -> list[Path]:
    # usd-core takes a second to import, and only here is it wanted.
    from dreampolish.assets.writing.usdz import write_usdz

    return write_usdz(path, asset)
