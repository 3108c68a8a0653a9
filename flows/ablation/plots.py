"""A study in pictures: every cell from the same views, labelled, and its figures as plots."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dreampolish.scene.pictures import pil_from_tensor
from flows.ablation.cell import Shown
from flows.ablation.statistics import StudyResult
from flows.benchmark.statistics import Figure
from schemas.studies import combination_name

LABEL_WIDTH, HEADER_HEIGHT, GAP = 230, 26, 3
LARGEST_TILE, LEAST_TILE = 128, 48
MAX_HEIGHT = 12_000
"""Pixels; tiles shrink until a sheet fits."""
PER_ROW = 3
"""Panels of the plot beside each other."""


def contact_sheet(result: StudyResult, shown: Sequence[Shown], truths: Mapping[str, Float[Tensor, "n h w 3"]]) -> Image.Image:
    """Blocks of one subject and seed: the truth, or the reference where there is none, then every variant from the same views.

    truths: the true object's pictures by subject. Failed cells keep their row, empty, with the reason.
    """
    by_run = {each.result.run: each for each in shown}
    blocks = [
        (subject, seed, list(cells))
        for (subject, seed), cells in groupby(result.cells, key=lambda cell: (cell.subject, cell.seed))
    ]
    n_rows = sum(len(cells) + 1 for _, _, cells in blocks)
    tile = max(LEAST_TILE, min(LARGEST_TILE, (MAX_HEIGHT - len(blocks) * HEADER_HEIGHT) // n_rows - GAP))
    n_views = max((len(each.views) for each in shown), default=1)
    size = (LABEL_WIDTH + n_views * (tile + GAP), n_rows * (tile + GAP) + len(blocks) * HEADER_HEIGHT)
    canvas = Image.new("RGB", size, "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for subject, seed, cells in blocks:
        draw.rectangle((0, top, size[0], top + HEADER_HEIGHT - 4), fill="#e4e4e4")
        _write(draw, (8, top + 3), f"{subject}, seed {seed}: “{cells[0].prompt}”", size=14, width=size[0] - 16)
        top += HEADER_HEIGHT
        first = next((by_run[cell.run] for cell in cells if cell.run in by_run), None)
        if subject in truths:
            _row(canvas, top=top, tile=tile, label="truth", pictures=list(truths[subject]))
        elif first is not None:
            _row(canvas, top=top, tile=tile, label="reference (the front)", pictures=[first.reference])
        top += tile + GAP
        for cell in cells:
            found = by_run.get(cell.run)
            if found is None:
                _write(
                    draw, (8, top + tile // 2 - 8), f"{cell.variant}: {cell.error or 'not there'}", size=13, width=size[0] - 16
                )
            else:
                _row(canvas, top=top, tile=tile, label=cell.variant, pictures=list(found.views))
            top += tile + GAP
    return canvas


def _row(canvas: Image.Image, top: int, tile: int, label: str, pictures: Sequence[Float[Tensor, "h w 3"]]) -> None:
    _write(ImageDraw.Draw(canvas), (8, top + tile // 2 - 8), label, size=13, width=LABEL_WIDTH - 12)
    for index, picture in enumerate(pictures):
        small = pil_from_tensor(picture).resize((tile, tile), Image.Resampling.LANCZOS)
        canvas.paste(small, (LABEL_WIDTH + index * (tile + GAP), top))


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, width: int) -> None:
    """A line of text, cut to a width in pixels."""
    font = ImageFont.load_default(size=size)
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2].rstrip("… ") + "…"
    draw.text(place, text, fill="black", font=font)


def plot(result: StudyResult, path: Path) -> None:
    """One panel a figure: heat maps for a matrix of two settings, else each cell as a point, with the variants' means."""
    figures = result.headline
    columns = max(1, min(PER_ROW, len(figures)))
    rows = max(1, -(-len(figures) // columns))
    matrix = result.spec.matrix
    is_grid = matrix is not None and len(matrix) == 2 and all(len(values) > 1 for values in matrix.values())
    height = 3.2 if is_grid else 1.0 + 0.32 * len(result.variants)
    canvas = Canvas(figsize=(4.2 * columns, height * rows + 0.6), dpi=110, layout="constrained")
    canvas.suptitle(f"{result.spec.name}: one point a cell, bar: mean" if not is_grid else f"{result.spec.name}: means")
    axes = canvas.subplots(rows, columns, squeeze=False).ravel()
    for panel, figure in zip(axes[: len(figures)], figures, strict=True):
        if is_grid:
            _heat_map(panel, result, figure)
        else:
            _points(panel, result, figure)
    for panel in axes[len(figures) :]:
        panel.axis("off")
    canvas.savefig(path)


def _arrow(figure: Figure) -> str:
    return {1: " (more is better)", -1: " (less is better)", 0: ""}[figure.better]


def _points(panel: Axes, result: StudyResult, figure: Figure) -> None:
    subjects = list(dict.fromkeys(cell.subject for cell in result.cells))
    values, means = result.table[figure.key].dropna() * figure.scale, result.means[figure.key] * figure.scale
    for (variant, subject), group in values.groupby(level=["variant", "subject"], sort=False):
        index = subjects.index(subject)
        height = result.variants.index(variant) + 0.3 * ((index + 0.5) / len(subjects) - 0.5)
        panel.plot(group, [height] * len(group), "o", ms=4, alpha=0.7, color=f"C{index % 10}", label=subject)
    panel.plot(means, range(len(means)), "|", ms=18, mew=2.5, color="black")
    if np.isfinite(means[result.spec.base_name]):
        panel.axvline(means[result.spec.base_name], color="grey", lw=0.8, ls=":")
    panel.set_yticks(range(len(result.variants)), result.variants, fontsize=8)
    panel.invert_yaxis()
    panel.tick_params(axis="x", labelsize=8)
    panel.set_title(figure.label + _arrow(figure), fontsize=9)
    if figure.key == result.headline[0].key and len(subjects) <= 10:
        handles = {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        panel.legend(handles.values(), handles.keys(), fontsize=6, loc="best", framealpha=0.6)


def _heat_map(panel: Axes, result: StudyResult, figure: Figure) -> None:
    assert result.spec.matrix is not None
    (down, downs), (across, acrosses) = result.spec.matrix.items()
    names = [combination_name([down, across], [one, other]) for one in downs for other in acrosses]
    means = (result.means[figure.key].reindex(names) * figure.scale).to_numpy().reshape(len(downs), len(acrosses))
    panel.imshow(means, cmap="viridis_r" if figure.better < 0 else "viridis", aspect="auto")
    middle = np.nanmean(means) if np.isfinite(means).any() else 0.0
    for (row, column), shown in np.ndenumerate(means):
        if np.isfinite(shown):
            dark = (shown < middle) == (figure.better >= 0)
            panel.text(
                column,
                row,
                f"{shown:.{figure.digits}f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    panel.set_xticks(range(len(acrosses)), [_tick(value) for value in acrosses], fontsize=8)
    panel.set_yticks(range(len(downs)), [_tick(value) for value in downs], fontsize=8)
    panel.set_xlabel(across, fontsize=8)
    panel.set_ylabel(down, fontsize=8)
    panel.set_title(figure.label + _arrow(figure), fontsize=9)


def _tick(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
