"""Pages from templates: self-contained, within a size limit, with a policy that forbids every request and every foreign script."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dreampolish.optim.atomic_files import write_atomically
from flows.report.chart import Chart, chart, figure, size
from flows.report.facts import RunFacts, StageFacts
from flows.report.settings import changes, plain, text
from flows.report.viewer.model import fitting_glb
from flows.report.viewer.three import three_script
from schemas.artifacts import StageName
from schemas.runs import ALL_STAGES, TITLES
from stages.runtime.tracking.messages import duration

MAX_BYTES = 12_000_000
"""Of a page."""
SCRIPTS = ("viewer.js", "steering.js", "page.js")
MAIN_FIGURES = ("psnr", "ssim", "alignment")
"""Columns of the stages' table: figures that several stages have."""
LABELS = {"psnr": "PSNR", "ssim": "SSIM", "alignment": "alignment"}


def run_page(facts: RunFacts) -> str:
    """The page of one run."""
    charts = {stage.name: [chart(name, [stage.curves[name]]) for name in _main_first(stage.curves)] for stage in facts.stages}
    return _fitted("run.html", [facts], {"runs": [facts], "facts": facts, "charts": charts, "headline": _headline(facts)})


def compare_page(runs: Sequence[RunFacts]) -> str:
    """The page of several runs side by side."""
    context = {"runs": runs, "charts": _common_charts(runs), "figures": _figure_rows(runs), "settings": _setting_rows(runs)}
    return _fitted("compare.html", runs, context)


def write_page(path: Path, page: str) -> None:
    """Write a page, replacing an older one at once. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.encode())


def _fitted(template: str, runs: Sequence[RunFacts], context: dict[str, Any]) -> str:
    """The page with its models, as large as the limit allows."""
    bare = len(_rendered(template, runs, [None] * len(runs), context).encode())
    share = (MAX_BYTES - bare) // len(runs) * 3 // 4 - 3
    models = [None if facts.glb is None else fitting_glb(facts.glb, share) for facts in runs]
    return _rendered(template, runs, models, context)


def _rendered(template: str, runs: Sequence[RunFacts], models: Sequence[bytes | None], context: dict[str, Any]) -> str:
    script = Markup("\n".join([three_script(), *(_file(name) for name in SCRIPTS)]))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            models=[None if model is None else base64.b64encode(model).decode() for model in models],
            lighter=[model is not None and model != facts.glb for model, facts in zip(models, runs, strict=True)],
            shown=[
                name
                for name in ALL_STAGES
                if any(stage.name == name and stage.strip for facts in runs for stage in facts.stages)
            ],
            style=Markup(_file("style.css")),
            script=script,
            script_digest=digest,
            titles=TITLES,
            main_figures=MAIN_FIGURES,
            labels=LABELS,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("flows.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "duration": _brief, "mebibytes": lambda size: f"{size / 2**20:,.0f} MiB"}
    environment.filters["words"] = lambda name: name.replace("_", " ")
    return environment


@cache
def _file(name: str) -> str:
    return resources.files("flows.report").joinpath("templates", name).read_text(encoding="utf-8").strip()


def _brief(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 9.95 else duration(seconds)


def _headline(facts: RunFacts) -> list[tuple[str, str]]:
    """The headline figures that the run has."""
    rows = [
        ("Alignment", _of_metric(facts, "alignment", "")),
        ("Reference PSNR", _of_metric(facts, "psnr", " dB")),
        ("Triangles", _of_metric(facts, "triangles", "")),
        ("GLB", "" if facts.glb is None else size(len(facts.glb))),
        ("Time", _brief(facts.seconds)),
        ("Peak memory", f"{facts.peak_memory / 2**20:,.0f} MiB"),
    ]
    return [(name, value) for name, value in rows if value]


def _of_metric(facts: RunFacts, name: str, unit: str) -> str:
    value = facts.metric(name)
    return "" if value is None else figure(value) + unit


def _stage(facts: RunFacts, name: StageName) -> StageFacts | None:
    return next((stage for stage in facts.stages if stage.name == name), None)


def _main_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: name not in MAIN_FIGURES)


def _common_charts(runs: Sequence[RunFacts]) -> dict[StageName, list[Chart]]:
    """For each stage the curves that all runs have, drawn over each other."""
    found: dict[StageName, list[Chart]] = {}
    for name in ALL_STAGES:
        stages = [_stage(facts, name) for facts in runs]
        curves = [{} if stage is None else stage.curves for stage in stages]
        common = [metric for metric in _main_first(curves[0]) if all(metric in others for others in curves)]
        if common:
            found[name] = [chart(metric, [of_run[metric] for of_run in curves]) for metric in common]
    return found


def _figure_rows(runs: Sequence[RunFacts]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """For each stage its figures, seconds and memory: a name and one cell a run, empty where a run has none."""
    groups = []
    for name in ALL_STAGES:
        stages = [_stage(facts, name) for facts in runs]
        metrics = dict.fromkeys(metric for stage in stages if stage is not None for metric in stage.metrics)
        if any(stages):
            rows = [
                (
                    metric,
                    ["" if stage is None or metric not in stage.metrics else figure(stage.metrics[metric]) for stage in stages],
                )
                for metric in metrics
            ]
            time = [("" if stage is None else _brief(stage.seconds_computing)) for stage in stages]
            memory = [("" if stage is None else f"{stage.peak_memory / 2**20:,.0f} MiB") for stage in stages]
            titles = [stage.title for stage in stages if stage is not None]
            groups.append((titles[0], [*rows, ("time", time), ("peak memory", memory)]))
    return groups


def _setting_rows(runs: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    """Settings in which any run differs from the first, with every run's value."""
    configs = [facts.record.config for facts in runs]
    names = dict.fromkeys(name for config in configs[1:] for name, _, _ in changes(configs[0], config))
    return [(name, [_value(config, name) for config in configs]) for name in names]


def _value(config: Any, name: str) -> str:
    values: Any = plain(config)
    for key in name.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return text(values)
