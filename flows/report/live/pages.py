"""The pages' HTML, from templates of this folder and of the report's."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.report.chart import chart, figure
from flows.report.curves import Curve
from flows.report.live.state import WORDS, listed, view_of
from flows.report.strips import strip_of_views
from flows.report.viewer.three import three_script
from schemas.runs import RunRecord

VIEW_SIDE = 224
"""Pixels of a finished stage's views."""
REPORT_SCRIPTS = ("viewer.js", "steering.js")
"""Of the report's templates."""
MAIN_FIRST = ("psnr", "ssim", "alignment")


def index_page(store: Path, notices: Sequence[dict[str, str]]) -> str:
    """The list of runs, which keeps itself up to date."""
    return _rendered("index.html", [_own("index.js")], rows=rows_html(store), notices=notices)


def rows_html(store: Path) -> str:
    """The list's rows."""
    return _environment().get_template("rows.html").render(runs=list(listed(store)), words=WORDS)


def run_page(record: RunRecord, store: Path) -> str:
    """The page of a run, which asks for what is new."""
    scripts = [three_script(), *(_reports(name) for name in REPORT_SCRIPTS), _own("live.js")]
    return _rendered("live.html", scripts, record=record, view=view_of(record, store))


def charts_html(curves: dict[str, Curve]) -> str:
    """A stage's curves as charts."""
    names = sorted(curves, key=lambda name: name not in MAIN_FIRST)
    return _environment().get_template("charts.html").render(charts=[chart(name, [curves[name]]) for name in names])


@lru_cache(maxsize=128)
def strip_bytes(paths: tuple[Path, ...]) -> bytes:
    """A finished stage's views side by side, WebP. Raises OSError for files that are no PNGs."""
    strip = strip_of_views(paths, VIEW_SIDE)
    return base64.b64decode(strip.uri.partition(",")[2])


def _rendered(template: str, scripts: Sequence[str], **context: Any) -> str:
    script = Markup("\n".join(scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = Markup("\n".join([_reports("style.css"), _own("live.css")]))
    return _environment().get_template(template).render(**context, script=script, script_digest=digest, style=style, models=[])


@cache
def _environment() -> Environment:
    loader = ChoiceLoader([PackageLoader("flows.report.live"), PackageLoader("flows.report")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": figure}
    return environment


@cache
def _own(name: str) -> str:
    return resources.files("flows.report.live").joinpath("templates", name).read_text(encoding="utf-8").strip()


@cache
def _reports(name: str) -> str:
    return resources.files("flows.report").joinpath("templates", name).read_text(encoding="utf-8").strip()
