"""The gallery: a strip of four views of each run's asset, and an index, the worst in a section of their own."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.pictures import pil_from_tensor
from flows.report.chart import figure, size
from flows.report.settings import run_line
from flows.runs.create import slug_from_prompt, unique_names
from schemas.artifacts import AssetArtifact, artifact_class_of
from schemas.runs import RunRecord
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.files import StoredFiles
from stages.results.surfaces import open_artifact
from stages.runtime.command import open_recorded
from stages.runtime.shared.stores import store_at
from stages.runtime.tracking.messages import duration, escaped

AZIMUTHS_DEG = (30.0, 120.0, 210.0, 300.0)
ELEVATION_DEG = 15.0
SIDE = 192
"""Pixels of a view."""
JPEG_QUALITY = 88
WORST_SHARE = 0.25
"""Of the gallery, by alignment, that is said to be worst; at least one of two or more."""


INTRODUCTION = """\
# Gallery

Written by `dreampolish gallery`; not to be edited by hand. Four views of each asset as its GLB holds it, unlit, a quarter turn
apart, ordered by alignment: the embedded judge's mean cosine between turntable and prompt, which is not a person's judgement.
"""


@dataclass(frozen=True)
class Entry:
    """A run in the gallery. alignment: the embedded judge's mean cosine between the asset's turntable and the prompt."""

    record: RunRecord
    picture: str
    alignment: float
    figures: str


def write_gallery(records: Sequence[RunRecord], store: Path, folder: Path) -> Path:
    """Write the pictures and index.md, whose path is returned. Raises StageError for a run without an asset, OSError."""
    assets = [open_recorded(AssetArtifact, record, store) for record in records]
    folder.mkdir(parents=True, exist_ok=True)
    files = StoredFiles(store_at(store), torch.device("cpu"))
    names = picture_names(records)
    entries = []
    for record, asset, name in zip(records, assets, names, strict=True):
        _write_strip(asset, record, files, folder / name)
        entries.append(
            Entry(record, name, record.stages["export"].metrics.get("alignment", -math.inf), _figures(record, asset, store))
        )
    index = folder / "index.md"
    write_atomically(index, index_text(entries, store).encode())
    return index


def picture_names(records: Sequence[RunRecord]) -> list[str]:
    """A file name for each run: its prompt's words, with the run's id where two prompts read alike."""
    slugs = [slug_from_prompt(record.prompt) for record in records]
    told_apart = [
        slug if slugs.count(slug) == 1 else f"{slug}-{record.run}" for slug, record in zip(slugs, records, strict=True)
    ]
    return [f"{name}.jpg" for name in unique_names(told_apart)]


def index_text(entries: Sequence[Entry], store: Path) -> str:
    """The index in Markdown: the best by alignment first, the worst in a section of their own."""
    ranked = sorted(entries, key=lambda entry: entry.alignment, reverse=True)
    n_worst = 0 if len(ranked) < 2 else max(1, round(WORST_SHARE * len(ranked)))
    rest, worst = ranked[: len(ranked) - n_worst], ranked[len(ranked) - n_worst :]
    lines = [INTRODUCTION, *_lines(rest, store)]
    if worst:
        lines += [f"## The worst {n_worst} of {len(ranked)} by alignment", "", *_lines(worst, store)]
    return "\n".join(lines)


def _lines(entries: Sequence[Entry], store: Path) -> Iterator[str]:
    for entry in entries:
        yield f"**{escaped(entry.record.prompt)}** {entry.figures}"
        yield ""
        yield f"![{escaped(entry.record.prompt)}]({entry.picture})"
        yield ""
        # A picture's path from the working folder: the page is read on other machines.
        yield f"    {run_line(entry.record, store, []).replace(f'{Path.cwd()}/', '')}"
        yield ""


def _write_strip(asset: AssetArtifact, record: RunRecord, files: StoredFiles, path: Path) -> None:
    azimuths = torch.tensor(AZIMUTHS_DEG)
    cameras = orbit_cameras(
        azimuths, torch.full_like(azimuths, ELEVATION_DEG), torch.full_like(azimuths, REFERENCE_FOV_DEG), SIDE
    )
    opened = open_artifact(asset, record.config.export, files)
    views = torch.cat([opened.render(cameras[[index]]).rgb for index in range(len(cameras))])
    strip = pil_from_tensor(torch.cat(list(views), dim=1))
    encoded = io.BytesIO()
    strip.save(encoded, "JPEG", quality=JPEG_QUALITY)
    write_atomically(path, encoded.getvalue())


def _figures(record: RunRecord, asset: AssetArtifact, store: Path) -> str:
    seconds = sum(open_recorded(artifact_class_of(name), record, store).seconds for name in record.stages)
    figures = record.stages["export"].metrics
    labels = {"alignment": "alignment {}", "psnr": "reference view {} dB"}
    parts = [label.format(figure(figures[name])) for name, label in labels.items() if name in figures]
    parts += [f"{asset.n_faces:,} triangles", size(asset.glb_bytes), f"preset {record.config.preset}"]
    return " · ".join([*parts, f"seed {record.config.seed}", duration(seconds)])
