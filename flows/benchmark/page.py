"""docs/benchmarks.md: what a benchmark measured, in tables and plain sentences."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from flows.benchmark.assets import asset_section
from flows.benchmark.overhead import Overhead, overhead_section
from flows.benchmark.rasterizers import Rasterizers, rasterizers_section
from flows.benchmark.stages import ROWS, Row
from flows.benchmark.statistics import (
    FIGURES,
    Change,
    Figure,
    ObjectResult,
    Results,
    change_of,
    figure_table,
    r_precision,
    stage_means,
)

BRINGS: dict[tuple[Row, Row], str] = {
    ("nerf", "neus"): "density -> signed distance",
    ("neus", "dmtet"): "field -> mesh",
    ("dmtet", "polish"): "normal polishing",
    ("untextured", "texture"): "one colour -> reference, painted views and DSD",
    ("polish", "texture"): "the mesh's colours -> DSD",
    ("texture", "export"): "decimation and baking",
}
"""The comparisons that the page makes, and what comes in between."""

NAMED: dict[tuple[Row, Row], str] = {
    ("untextured", "texture"): "Everything that brings colour (reference, painted views, **texture**), against one colour,"
}
"""Of the comparisons that are not of a stage with the one before: what they are called."""

HOW = """Each object's true front picture and its prompt went through `dreampolish run --image`. Every stage's result was then compared
with the true mesh (normalised to a sphere of radius 0.6): PSNR, SSIM, mask IoU and the mean angle of normals on the common mask over
16 views all around at two elevations (128 pixels, FOV 20); PSNR as a surface, of the same pictures and the true ones with what is
more than half covered in its own colour and the rest white, for half transparent fields gain where they are unsure of an outline and
no mesh can; Chamfer distance (half the sum of both mean distances, world units) and F-score (threshold 2 % of the true box's diagonal)
on 30,000 points of each surface, less those that no eye sees from 40 places around, above and below; roughness, by how much the mean
angle between such a point's normal and the mean one within 0.02 world units exceeds the true surface's (told, not judged: facets count
in it, and distances reward a surface that scatters around the right place); PSNR and SSIM of the front view;
`alignment`, the embedded judge's mean cosine between the turntable and the prompt. A NeRF's surface is the level set that looks most
like its pictures. From `dmtet` on the mesh carries the colours of the views that were painted on the way. `untextured` is the polished
mesh all in one colour, the mean one of the true front picture: against it stands what those views, the reference's colours and DSD
bring together, against `polish` what the texture stage adds to the colours that it starts from. Seconds and peak memory are those of
the computation, a resumed one's with what led to its checkpoint."""


_KEPT = "Measured on"


@dataclass(frozen=True)
class Setting:
    """Under what a benchmark ran. objects: the folder. names: how many names the judge chose from."""

    date: str
    machine: str
    versions: str
    preset: str
    overrides: tuple[str, ...]
    seed: int
    threads: int
    objects: str
    names: int
    remarks: str = ""
    """What a reader should know of the objects."""


def report_text(
    results: Results,
    setting: Setting,
    overheads: Sequence[Overhead] = (),
    before: str = "",
    rasterizers: Sequence[Rasterizers] = (),
) -> str:
    """The whole page, Markdown.

    overheads, rasterizers: measurements of orchestration's cost, and of rasterisers. before: the page so far, whose prompts are kept;
    empty where this benchmark took its own.
    """
    parts = [
        "# Benchmarks",
        f"Written by `dreampolish benchmark` on {setting.date}; not to be edited by hand.",
        _setting_lines(setting),
    ]
    if results.failures:
        failed = "\n".join(f"- **{failure.name}**: {failure.message}" for failure in results.failures)
        parts += ["## Failed", f"Not in any figure below:\n\n{failed}"]
    if results.objects:
        parts += ["## Held to the truth", HOW, _mean_table(results.objects)]
        parts += ["## What each stage brings", _change_table(results.objects), _verdicts(results.objects)]
        parts += ["## Object by object", _object_table(results.objects), _sheet_links(results.objects)]
    if results.prompts:
        parts += ["## Prompts", _prompt_section(results, setting)]
    elif kept := kept_prompts(before):
        parts += ["## Prompts", kept]
    if results.assets:
        parts += ["## Assets", asset_section(results.assets)]
    if overheads:
        parts += ["## Orchestration", overhead_section(overheads)]
    if rasterizers:
        parts += ["## Rasterisers", rasterizers_section(rasterizers)]
    return "\n\n".join(parts) + "\n"


def kept_prompts(page: str) -> str:
    """A page's section on prompts, with what says when and under what it was measured; empty if it has none."""
    head, found, rest = page.partition("\n## Prompts\n")
    if not found:
        return ""
    section = rest.partition("\n## ")[0].strip()
    if section.startswith(_KEPT):
        return section
    date = head.partition("Written by `dreampolish benchmark` on ")[2].partition(";")[0]
    setting = " ".join(
        line.removeprefix("- ") + "." for line in head.partition("\n## ")[0].splitlines() if line.startswith("- ")
    )
    return f"{_KEPT} {date}: the last benchmark took no prompts, and their assets are not in the table below. {setting}\n\n{section}"


def machine_line(device: torch.device) -> str:
    """Processor, cores, memory and, when it is used, the graphics card."""
    name = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    card = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ", no GPU"
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB{card}"


def versions_line() -> str:
    """Of what decides the figures."""
    found = [f"Python {platform.python_version()}"]
    for package in ("dreampolish", "torch", "diffusers", "nerfacc"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _setting_lines(setting: Setting) -> str:
    changed = ", ".join(f"`{override}`" for override in setting.overrides) or "none"
    lines = [
        f"machine: {setting.machine}; {setting.threads} threads",
        f"versions: {setting.versions}",
        f"preset `{setting.preset}`, seed {setting.seed}, settings changed: {changed}",
        f"objects: `{setting.objects}`{'. ' if setting.remarks else ''}{setting.remarks}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def _mean_table(objects: Sequence[ObjectResult]) -> str:
    means = stage_means(objects)
    rows = [[stage, *(figure.text(means.at[stage, figure.key]) for figure in FIGURES)] for stage in ROWS]
    told = f"Means over {len(objects)} object{'s' if len(objects) > 1 else ''}:"
    return told + "\n\n" + _table(["stage", *(figure.label for figure in FIGURES)], rows)


def _change_table(objects: Sequence[ObjectResult]) -> str:
    table, figures = figure_table(objects), [figure for figure in FIGURES if not figure.cost]
    rows = []
    for before, after in BRINGS:
        changes = [(change_of(table, before, after, figure), figure) for figure in figures]
        rows.append([f"{before} -> {after}: {BRINGS[before, after]}", *(_change(*pair) for pair in changes)])
    told = (
        "Mean paired change ± its standard error, and how many objects it makes better; **bold** where the average gets worse, = where "
        "it stays the same to the digits shown, without a count where it is not judged:"
    )
    return told + "\n\n" + _table(["from -> to", *(figure.label for figure in figures)], rows)


def _change(change: Change | None, figure: Figure) -> str:
    if change is None:
        return "-"
    if not figure.better:
        return figure.change_text(change.mean, change.error)
    if change.direction(figure) == 0:
        return "="
    told = f"{figure.change_text(change.mean, change.error)} ({change.improved}/{change.objects})"
    return f"**{told}**" if change.direction(figure) < 0 else told


def _verdicts(objects: Sequence[ObjectResult]) -> str:
    """A stage's clear gains and losses, more than two standard errors from 0, then the rest, then what is not judged."""
    table, sentences = figure_table(objects), []
    for before, after in BRINGS:
        found = [(change_of(table, before, after, figure), figure) for figure in FIGURES if not figure.cost]
        changes = [(change, figure) for change, figure in found if change is not None]
        if not changes:
            continue
        clear = [(change, figure) for change, figure in changes if change.beyond_chance]
        worse = [_worse(change, figure) for change, figure in clear if change.direction(figure) < 0]
        better = [_told_change(change, figure) for change, figure in clear if change.direction(figure) > 0]
        unclear = [
            _told_change(change, figure)
            for change, figure in changes
            if not change.beyond_chance and change.direction(figure) != 0
        ]
        unjudged = [_told_change(change, figure) for change, figure in changes if not figure.better]
        gains = f"improves {'; '.join(better)}" if better else "clearly improves nothing"
        losses = f"**makes things worse on the average: {'; '.join(worse)}**" if worse else "makes nothing clearly worse"
        kind = "Of one object" if all(change.objects == 1 for change, _ in changes) else "Within two standard errors"
        doubts = f" {kind}: {'; '.join(unclear)}." if unclear else ""
        told = f" Not judged: {'; '.join(unjudged)}." if unjudged else ""
        sentences.append(f"- {NAMED.get((before, after), f'**{after}**')} {gains}, and {losses}.{doubts}{told}")
    return "\n".join(sentences)


def _told_change(change: Change, figure: Figure) -> str:
    return f"{figure.label} {figure.change_text(change.mean, change.error)}"


def _worse(change: Change, figure: Figure) -> str:
    return f"{_told_change(change, figure)} (worse on {change.worsened} of {change.objects} objects)"


def _object_table(objects: Sequence[ObjectResult]) -> str:
    rows = []
    for result in objects:
        for stage in ROWS:
            if stage in result.stages:
                numbers = [figure.text(result.stages[stage].get(figure.key)) for figure in FIGURES]
                rows.append([result.name, stage, *numbers])
    return _table(["object", "stage", *(figure.label for figure in FIGURES)], rows)


def _sheet_links(objects: Sequence[ObjectResult]) -> str:
    return "\n\n".join(
        f'{result.name}, "{result.prompt}", run {result.run}: the truth, then each stage.\n\n'
        f"![{result.name}](benchmark-{result.name}.png)"
        for result in objects
    )


def _prompt_section(results: Results, setting: Setting) -> str:
    rows = [
        [result.prompt, result.run, f"{result.hits}/{result.views}", result.nearest, f"{result.alignment:.3f}"]
        for result in results.prompts
    ]
    told = (
        f"R-precision of the final renders (the asset's turntable) by the embedded judge, among {len(rows)} prompts and "
        f"{setting.names} names of held-out objects; a name of the same thing counts as right (the same judge chose each "
        f"prompt's reference among the candidates, and the prompts are among its texts): "
        f"**{r_precision(results.prompts):.2f}**. Its word on true renders of held-out objects is right for the share that the "
        f"priors' card tells (`r_precision_names`)."
    )
    return told + "\n\n" + _table(["prompt", "run", "views taken for it", "most views taken for", "alignment"], rows)
