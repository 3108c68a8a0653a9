"""docs/benchmarks/index.md: what a benchmark measured, in tables and plain sentences."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from tabulate import tabulate

from dreampolish.scene.cutout import OBJECT_RADIUS
from flows.benchmark.assets import checks
from flows.benchmark.assets.checks import LEAST_AGREEMENT_DB, Agreement, AssetResult
from flows.benchmark.overhead import Overhead
from flows.benchmark.rasterizers import ROUNDS, Rasterizers
from flows.benchmark.stages import ROWS, Row
from flows.benchmark.statistics import (
    FIGURES,
    Change,
    Figure,
    ObjectResult,
    PromptResult,
    Results,
    change_of,
    figure_table,
    r_precision,
    stage_means,
)
from flows.benchmark.subjects import remarks_of
from schemas.config.run import Config
from stages.runtime.context import device_from_name, threads_from_setting
from stages.runtime.files import disk_errors_in_one_line, for_the_user
from stages.runtime.tracking.messages import escaped, in_backquotes

DOCS = Path("docs/benchmarks")
DOCS_ELSEWHERE = "call this in another folder: the page goes to ./docs/benchmarks"

STEPS: dict[tuple[Row, Row], str] = {
    ("nerf", "neus"): "density -> signed distance",
    ("neus", "dmtet"): "field -> mesh",
    ("dmtet", "polish"): "normal polishing",
    ("untextured", "texture"): "one colour -> reference, painted views and DSD",
    ("polish", "texture"): "the mesh's colours -> DSD",
    ("texture", "export"): "decimation and baking",
}
"""The comparisons that the page makes, and what the step does."""

NAMED: dict[tuple[Row, Row], str] = {
    ("untextured", "texture"): "Everything that brings colour (reference, painted views, **texture**), against one colour,"
}
"""Names of the comparisons that are not of a stage with the one before."""

COMPARED = [figure for figure in FIGURES if not figure.cost]
KEPT = "Measured on"


@dataclass(frozen=True)
class Setting:
    """Machine and settings of a benchmark. objects: the folder. names: how many names the judge chose from."""

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
    """Notes on the objects for the reader."""


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
    functions = {
        "mean_table": mean_table,
        "change_table": change_table,
        "verdicts": verdicts,
        "object_table": object_table,
        "r_precision": r_precision,
        "prompt_table": prompt_table,
        "asset_table": asset_table,
        "asset_verdict": asset_verdict,
        "overhead_table": overhead_table,
        "rasterizer_table": rasterizer_table,
    }
    content = {"results": results, "setting": setting, "overheads": overheads, "rasterizers": rasterizers}
    constants = {"assets": checks, "ball_radius": OBJECT_RADIUS, "rounds": ROUNDS}
    return markdown("flows.benchmark", "page.md", {**content, **functions, **constants, "kept": kept_prompts(before)})


def markdown(package: str, template: str, content: Mapping[str, Any]) -> str:
    """A package's Markdown template, filled in."""
    loader = PackageLoader(package)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["codes"] = lambda items: ", ".join(f"`{in_backquotes(item)}`" for item in items) or "none"
    environment.filters["code"] = in_backquotes
    environment.filters["plain"] = escaped
    environment.filters["times"] = _times
    return environment.get_template(template).render(content).rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table. words: how many columns stand to the left; numbers stand to the right."""
    sides = ["left"] * words + ["right"] * (len(head) - words)
    return tabulate(rows, head, tablefmt="pipe", colalign=sides, disable_numparse=True)


def _times(factors: Iterable[float]) -> str:
    values = list(factors)
    return f"{min(values):.2f} to {max(values):.2f} times"


def kept_prompts(page: str) -> str:
    """A page's section on prompts, with date and settings of its measurement; empty if it has none."""
    head, found, rest = page.partition("\n## Prompts\n")
    if not found:
        return ""
    section = rest.partition("\n## ")[0].strip()
    if section.startswith(KEPT):
        return section
    date = head.partition("Written by `dreampolish benchmark` on ")[2].partition(";")[0]
    setting = " ".join(
        line.removeprefix("- ") + "." for line in head.partition("\n## ")[0].splitlines() if line.startswith("- ")
    )
    return f"{KEPT} {date}: the last benchmark took no prompts, and their assets are not in the table below. {setting}\n\n{section}"


def date_line() -> str:
    """Now, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


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


def mean_table(objects: Sequence[ObjectResult]) -> str:
    """A row a stage, a column a figure."""
    means = stage_means(objects)
    rows = [[stage, *(figure.text(means.at[stage, figure.key]) for figure in FIGURES)] for stage in ROWS]
    return table(["stage", *(figure.label for figure in FIGURES)], rows)


def object_table(objects: Sequence[ObjectResult]) -> str:
    """A row an object and stage, a column a figure."""
    rows = [
        [result.name, stage, *(figure.text(result.stages[stage].get(figure.key)) for figure in FIGURES)]
        for result in objects
        for stage in ROWS
        if stage in result.stages
    ]
    return table(["object", "stage", *(figure.label for figure in FIGURES)], rows)


def change_table(objects: Sequence[ObjectResult]) -> str:
    """A row a comparison, a column a figure that is no cost."""
    known = figure_table(objects)
    rows = [
        [f"{before} -> {after}: {what}", *(_change(change_of(known, before, after, figure), figure) for figure in COMPARED)]
        for (before, after), what in STEPS.items()
    ]
    return table(["from -> to", *(figure.label for figure in COMPARED)], rows)


def _change(change: Change | None, figure: Figure) -> str:
    if change is None:
        return "-"
    signed = figure.change_text(change.mean, change.error)
    if not figure.better:
        return signed
    if change.direction(figure) == 0:
        return "="
    counted = f"{signed} ({change.improved}/{change.objects})"
    return f"**{counted}**" if change.direction(figure) < 0 else counted


def verdicts(objects: Sequence[ObjectResult]) -> str:
    """A stage's clear gains and losses, more than two standard errors from 0, then the rest, then figures without a better."""
    known, sentences = figure_table(objects), []
    for before, after in STEPS:
        found = [(change_of(known, before, after, figure), figure) for figure in COMPARED]
        changes = [(change, figure) for change, figure in found if change is not None]
        if not changes:
            continue
        better, worse, unclear, unjudged = [], [], [], []
        for change, figure in changes:
            sentence, direction = f"{figure.label} {figure.change_text(change.mean, change.error)}", change.direction(figure)
            if not figure.better:
                unjudged.append(sentence)
            elif direction and not change.beyond_chance:
                unclear.append(sentence)
            elif direction > 0:
                better.append(sentence)
            elif direction < 0:
                worse.append(f"{sentence} (worse on {change.worsened} of {change.objects} objects)")
        gains = f"improves {'; '.join(better)}" if better else "clearly improves nothing"
        losses = f"**makes things worse on the average: {'; '.join(worse)}**" if worse else "makes nothing clearly worse"
        kind = "Of one object" if all(change.objects == 1 for change, _ in changes) else "Within two standard errors"
        doubts = f" {kind}: {'; '.join(unclear)}." if unclear else ""
        rest = f" Without a better direction: {'; '.join(unjudged)}." if unjudged else ""
        sentences.append(f"- {NAMED.get((before, after), f'**{after}**')} {gains}, and {losses}.{doubts}{rest}")
    return "\n".join(sentences)


def prompt_table(prompts: Sequence[PromptResult]) -> str:
    """A row a prompt."""
    rows = [
        [
            escaped(result.prompt),
            result.run,
            f"{result.hits}/{result.views}",
            escaped(result.nearest),
            f"{result.alignment:.3f}",
        ]
        for result in prompts
    ]
    return table(["prompt", "run", "views taken for it", "most views taken for", "alignment"], rows)


def asset_table(results: Sequence[AssetResult]) -> str:
    """A row an asset."""
    head = ["asset", "run", "errors", "warnings", "MB", "triangles", "our rasteriser", "three.js", "normals"]
    rows = [
        [
            *(escaped(result.name), result.run, str(result.errors), str(result.warnings)),
            *(f"{result.megabytes:.2f}", f"{result.triangles:,}"),
            *(_decibels(entry) for entry in (result.ours, result.browser, result.normals)),
        ]
        for result in results
    ]
    return table(head, rows, words=2)


def _decibels(entry: Agreement | None) -> str:
    return "-" if entry is None else f"{entry.mean:.1f} ({entry.least:.1f})"


def asset_verdict(results: Sequence[AssetResult]) -> str:
    """In a sentence, which assets fall short."""
    unsound = [escaped(result.name) for result in results if result.errors or result.warnings]
    unlike = [escaped(result.name) for result in results if result.least_agreement < LEAST_AGREEMENT_DB]
    drawn = sum(result.browser is not None for result in results)
    validator = f"**not without complaint of the validator: {', '.join(unsound)}**"
    views = f"**below {LEAST_AGREEMENT_DB:g} dB in a view: {', '.join(unlike)}**"
    reached = f"every view reaches {LEAST_AGREEMENT_DB:g} dB ({drawn} of {len(results)} drawn by three.js too)"
    return (
        f"{len(results)} assets: {validator if unsound else 'the validator has no complaint'}; {views if unlike else reached}."
    )


def overhead_table(overhead: Overhead) -> str:
    """A row a pair, seconds."""
    rows = [
        [str(number), *(f"{seconds:.1f}" for seconds in (pair.run.wall, pair.plain.wall, pair.run.cpu, pair.plain.cpu))]
        for number, pair in enumerate(overhead.pairs, start=1)
    ]
    return table(["pair", "run", "plain", "run, CPU", "plain, CPU"], rows, words=0)


def rasterizer_table(found: Sequence[Rasterizers]) -> str:
    """A row a mesh and size, milliseconds."""
    head = ["triangles", "pixels", "ours", "ours, culled", "embree", "embree's tree", "pixels that differ"]
    rows = [
        [
            *(f"{one.triangles:,}", str(one.size)),
            *(f"{taken:.1f}" for taken in (one.ours_ms, one.culled_ms, one.embree_ms, one.scene_ms)),
            f"{one.differ:.3%}",
        ]
        for one in found
    ]
    return table(head, rows, words=0)


def write_sheet(name: str, picture: Image.Image) -> np.ndarray:
    """docs/benchmarks/<name>.png; its pixels."""
    with for_the_user(), disk_errors_in_one_line(DOCS, DOCS_ELSEWHERE):
        DOCS.mkdir(parents=True, exist_ok=True)
        picture.save(DOCS / f"{name}.png")
    return np.asarray(picture)


def write_report(
    results: Results, setting: Setting, overheads: Sequence[Overhead], rasterizers: Sequence[Rasterizers], keep_prompts: bool
) -> Path:
    """docs/benchmarks/index.md; its path. keep_prompts: those of the page so far stay, with their date and setting."""
    page = DOCS / "index.md"
    with for_the_user(), disk_errors_in_one_line(DOCS, DOCS_ELSEWHERE):
        DOCS.mkdir(parents=True, exist_ok=True)
        before = page.read_text() if keep_prompts and page.is_file() else ""
        page.write_text(report_text(results, setting, overheads=overheads, before=before, rasterizers=rasterizers))
    return page


def setting_of(config: Config, overrides: tuple[str, ...], objects: Path, n_names: int) -> Setting:
    """Machine and settings, as the page states them."""
    return Setting(
        date=date_line(),
        machine=machine_line(device_from_name(config.device)),
        versions=versions_line(),
        preset=config.preset,
        overrides=overrides,
        seed=config.seed,
        threads=threads_from_setting(config.threads),
        objects=str(objects),
        names=n_names,
        remarks=remarks_of(objects),
    )
