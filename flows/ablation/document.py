"""A study in words and tables; every number and every sentence comes from its study.json."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from dreampolish.optim.atomic_files import write_atomically
from flows.ablation.statistics import (
    BY_KEY,
    CellResult,
    StudyResult,
    between_groups,
    paired,
    read_result,
    seed_spreads,
)
from flows.benchmark.page import markdown, table
from flows.benchmark.statistics import Figure
from schemas.config.presets import ConfigError
from schemas.studies import Variant
from stages.runtime.files import disk_errors_in_one_line, for_the_user

EXPLAINED = {
    "psnr": "PSNR and SSIM over 16 views all around (128 pixels), mask IoU, normals on the common mask: against the true object",
    "psnr_solid": "PSNR as a surface: of both pictures, what is more than half covered in its own colour, the rest white",
    "chamfer": "Chamfer distance and F-score: against the true surface, as in docs/benchmarks",
    "reference_psnr": "front PSNR and SSIM: the reference view",
    "alignment": "alignment: the embedded judge's mean cosine between the 16 views and the prompt",
    "judged_right": "judged right: share of the views that the judge takes for the prompt or the same thing, among the study's "
    "prompts and the names of held-out things",
    "normal_agreement": "normal agreement: mean cosine between the mesh's normals and the normal prior's on eight fixed views",
    "colour_drift": "colour drift: distance in RGB between the mean colour from behind and the reference's",
    "seconds": "seconds: by the clock, so that a busy machine shows in them",
    "saturation": "saturation and grain (mean grey difference of neighbouring pixels) have no better direction",
}


def study_text(result: StudyResult, level: str, pictures: Sequence[str]) -> str:
    """The whole section, Markdown. level: of its heading. pictures: image links that stand after the tables."""
    content = {
        "level": level,
        "result": result,
        "spec": result.spec,
        "common": [f"{key}={value}" for key, value in result.spec.settings.items()] + result.overrides,
        "subjects": list(dict.fromkeys((cell.subject, cell.prompt) for cell in result.cells)),
        "states": [stage.state for cell in result.cells for stage in cell.stages.values()],
        "failed": [cell for cell in result.cells if cell.error is not None],
        "explained": [text for key, text in EXPLAINED.items() if result.table[key].notna().any()],
        "pictures": pictures,
        "variant_table": variant_table,
        "mean_table": mean_table,
        "paired_table": paired_table,
        "group_table": group_table,
        "shape_table": shape_table,
        "shape_counts": shape_counts,
        "verdicts": verdicts,
    }
    return markdown("flows.ablation", "study.md", content)


def variant_table(result: StudyResult) -> str:
    """A row a variant: its settings and where they come from."""
    rows = []
    for name, variant in result.spec.all_variants().items():
        cells = [cell for cell in result.cells if cell.variant == name]
        settings = next((cell.settings for cell in cells if cell.error is None), [])
        own = ", ".join(f"`{item}`" for item in settings) or ("-" if name in result.others else "the base")
        rows.append([name, own, _made(variant), cells[0].until if cells else "-"])
    return table(["variant", "settings that differ from the base", "how they were chosen", "measured after"], rows, words=4)


def _made(variant: Variant) -> str:
    if variant.shares is not None:
        dealt = ", ".join(f"{name} {share:.0%}" for name, share in variant.shares.items())
        return f"the base's geometry steps dealt out: {dealt}"
    if variant.like is not None:
        return f"as `{variant.like}`, steps of {', '.join(variant.stretch)} stretched to the seconds of `{variant.as_long_as}`"
    return "given"


def mean_table(result: StudyResult) -> str:
    """A row a variant, a column a figure."""
    means, spreads = result.means, seed_spreads(result.table)
    rows = []
    for variant in result.variants:
        cells = [cell for cell in result.cells if cell.variant == variant and cell.error is None]
        numbers = []
        for figure in result.figures:
            spread = figure.text(spreads.at[variant, figure.key])
            numbers.append(figure.text(means.at[variant, figure.key]) + ("" if spread == "-" else f" ± {spread}"))
        rows.append([variant, str(len(cells)), *numbers])
    return table(["variant", "cells", *(figure.label for figure in result.figures)], rows)


def paired_table(result: StudyResult) -> str:
    """A row a variant but the base, a column a figure."""
    rows = [[variant, *(_change(result, variant, figure) for figure in result.figures)] for variant in result.others]
    return table(["variant", *(figure.label for figure in result.figures)], rows)


def _change(result: StudyResult, variant: str, figure: Figure) -> str:
    change = paired(result.table, variant, result.spec.base_name, figure.key)
    if change is None:
        return "-"
    counted = f"{figure.change_text(change.mean, change.error)} ({change.pairs})"
    return f"**{counted}**" if change.verdict(figure) else counted


def group_table(result: StudyResult) -> str:
    """A row a variant and figure: the first two groups and their difference."""
    first, second = result.spec.groups[:2]
    rows = []
    for variant in result.variants:
        for figure in result.figures:
            found = between_groups(result.table, variant, figure.key, first=first, second=second)
            if found is not None:
                change = f"{figure.change_text(found.difference, found.error)} ({found.counts[0]}, {found.counts[1]})"
                rows.append([variant, figure.label, figure.text(found.first), figure.text(found.second), change])
    return table(["variant", "figure", first, second, "difference"], rows)


SHAPE = ("normal_angle_deg", "roughness_deg", "chamfer")
"""What says of a roughened mesh how near it came to the truth."""


def shape_table(result: StudyResult) -> str:
    """A row a subject, a column a variant: the figures of SHAPE, means over seeds."""
    means = result.table.groupby(["subject", "variant"]).mean()
    rows = []
    for subject in dict.fromkeys(cell.subject for cell in result.cells):
        found = [[BY_KEY[key].text(_at(means, (subject, name), key)) for key in SHAPE] for name in result.variants]
        rows.append([subject, *(" / ".join(figures) for figures in found)])
    return table(["subject", *result.variants], rows, words=1)


def _at(means: pd.DataFrame, row: tuple[str, str], key: str) -> float:
    return float(means.at[row, key]) if row in means.index else math.nan


def shape_counts(result: StudyResult) -> list[str]:
    """For each variant but the base, of how many subjects and seeds each figure of SHAPE fell below the base's, in plain sentences."""
    lines = []
    for name in result.others:
        counted = []
        for key in SHAPE:
            here, base = (result.table[key].xs(each, level="variant") for each in (name, result.spec.base_name))
            falls = (here - base).dropna() < 0
            counted.append(f"{BY_KEY[key].label} fell in {int(falls.sum())} of {len(falls)}")
        lines.append(f"**{name}** against {result.spec.base_name}: {'; '.join(counted)}.")
    return lines


def verdicts(result: StudyResult) -> list[str]:
    """Plain sentences, computed: which variant is best by each figure, and how each stands against the base."""
    judged, base = [figure for figure in result.figures if figure.better], result.spec.base_name
    lines = []
    if result.others:
        best = [f"{figure.label}: {_best(result, figure)}" for figure in judged]
        lines.append(f"Best mean by each figure: {'; '.join(best)}.")
    for variant in result.others:
        sides: dict[int, list[str]] = {1: [], -1: [], 0: []}
        for figure in judged:
            change = paired(result.table, variant, base, figure.key)
            if change is not None:
                verdict = change.verdict(figure)
                size = f" {figure.change_text(change.mean, change.error)}" if verdict else ""
                sides[verdict].append(figure.label + size)
        if not any(sides.values()):
            lines.append(f"**{variant}**: nothing to compare with {base}.")
            continue
        parts = [f"better in {'; '.join(sides[1])}"] if sides[1] else []
        parts += [f"worse in {'; '.join(sides[-1])}"] if sides[-1] else []
        parts += [f"no clear difference in {', '.join(sides[0])}"] if sides[0] else []
        lines.append(f"**{variant}** against {base}: {', and '.join(parts)}.")
    return lines + _group_verdicts(result)


def _best(result: StudyResult, figure: Figure) -> str:
    means = result.means[figure.key].dropna()
    if means.map(figure.text).nunique() == 1:
        return "all the same"
    best = (means * figure.better).idxmax()
    return f"{best} ({figure.text(means[best])})"


def _group_verdicts(result: StudyResult) -> list[str]:
    """How much a group of subjects stands off from another, in standard errors."""
    if len(result.spec.groups) < 2:
        return []
    first, second = result.spec.groups[:2]
    lines = []
    for variant in result.variants:
        said = []
        for figure in result.figures:
            found = between_groups(result.table, variant, figure.key, first=first, second=second)
            if figure.better and found is not None and found.error > 0:
                sizes = found.difference / found.error
                how = "better" if sizes * figure.better > 0 else "worse"
                said.append(f"{figure.label} {how} by {abs(sizes):.1f} standard errors")
        lines.append(f"**{second}** against {first} ({variant}): {'; '.join(said) or 'too few subjects for an error'}.")
    return lines


def cell_line(cell: CellResult) -> str:
    """One cell in a line, for the terminal."""
    shown = [BY_KEY[key] for key in ("psnr", "chamfer", "reference_psnr", "alignment") if key in cell.figures]
    states = [stage.state for stage in cell.stages.values()]
    computed = len(states) - states.count("cached")
    figures = "  ".join(f"{figure.label} {figure.text(cell.figures[figure.key])}" for figure in shown)
    return f"  {computed} of {len(states)} stages computed  {figures}"


LARGEST_SIDE = 6000
"""Pixels of a sheet's longer side on the page."""
HEAD = """# Studies

Written by `dreampolish studies` from the studies' own results; not to be edited by hand. `dreampolish ablate NAME` runs one anew."""


def write_page(folders: Sequence[Path], page: Path) -> Path:
    """The page and, beside it, each study's plot and contact sheet; its path. Raises ConfigError where a study cannot be read."""
    results = [(folder, read_result(folder)) for folder in folders]
    names = [result.spec.name for _, result in results]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise ConfigError(f"two of the folders hold the study {twice}; name one of them")
    with for_the_user(), disk_errors_in_one_line(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
        sections = [study_text(result, "##", _pictures(folder, result, page.parent)) for folder, result in results]
        write_atomically(page, "\n".join([HEAD + "\n", *sections]).encode())
    return page


def _pictures(folder: Path, result: StudyResult, target: Path) -> list[str]:
    """Copies of a study's pictures beside the page, and their links."""
    links = []
    name = result.spec.name
    if (folder / "plot.png").is_file():
        write_atomically(target / f"{name}-plot.png", (folder / "plot.png").read_bytes())
        links.append(f"![{name}: figures]({name}-plot.png)")
    if (folder / "sheet.png").is_file():
        with Image.open(folder / "sheet.png", formats=["PNG"]) as sheet:
            picture = sheet.convert("RGB")
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        picture.save(target / f"{name}.jpg", quality=85, optimize=True)
        caption = "Every cell from the same eight views; the truth, or the reference, on top of each block:"
        links.append(f"{caption}\n\n![{name}: all cells]({name}.jpg)")
    return links
