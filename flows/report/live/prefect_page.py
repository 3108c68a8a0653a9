"""What a flow run's page in Prefect shows of its asset: figures and links as Markdown, the contact sheet as a picture.

Prefect shows a picture by its address alone, and a browser on its page may fetch nothing from our other servers. So the sheet stands in
the address itself, small enough for Prefect's database.
"""

import base64
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from flows.report.chart import figure
from schemas.runs import RunRecord
from stages.runtime.tracking.messages import duration, escaped, in_backquotes

KEY, SHEET_KEY = "asset", "contact-sheet"
SHEET_WIDTH = 640
"""Pixels at most."""
SHEET_BYTES = 60_000
"""At most, of the JPEG; a lower quality is taken until it fits."""
QUALITIES = (75, 60, 45, 30)
COLUMNS = ("psnr", "ssim", "alignment")


def show_in_prefect(record: RunRecord, links: Sequence[tuple[str, str]]) -> None:
    """Make both artifacts in the current flow run; outside one nothing is done, and no trouble of a server's ends anything.

    record: of a run whose output folder is written. links: words and addresses of pages about it.
    """
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None or record.output is None:
        return
    from prefect.artifacts import create_image_artifact, create_markdown_artifact

    try:
        create_markdown_artifact(asset_markdown(record, links), key=KEY, description=f"Run {record.run}: figures and links")
        sheet = Path(record.output) / "contact_sheet.png"
        create_image_artifact(picture_address(sheet), key=SHEET_KEY, description="Reference and turntables of the stages")
    except Exception as error:
        logging.getLogger(__name__).debug("no artifacts in Prefect: %s", error)


def asset_markdown(record: RunRecord, links: Sequence[tuple[str, str]]) -> str:
    """A run's figures, stage by stage, and where to look further."""
    output = Path(record.output or "")
    lines = [
        f"# {escaped(record.prompt)}",
        "",
        f"Run `{in_backquotes(record.run)}`, preset `{in_backquotes(record.config.preset)}`, seed {record.config.seed}.",
        "",
        *(f"- [{escaped(words)}]({address})" for words, address in links),
        f"- report: `{in_backquotes(_shown(output / 'report.html'))}`",
        f"- asset: `{in_backquotes(_shown(output / 'asset.glb'))}`",
        f"- in a terminal: `dreampolish report {in_backquotes(record.run)}`",
        "",
        "| stage | state | time | PSNR | SSIM | alignment |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for entry in record.stages.values():
        figures = " | ".join(figure(entry.metrics[name]) if name in entry.metrics else "" for name in COLUMNS)
        lines.append(f"| {entry.name} | {entry.state} | {duration(entry.seconds)} | {figures} |")
    return "\n".join(
        [*lines, "", "PSNR in dB, of the reference view. Time is that of this run: near 0 s where a result was found."]
    )


def _shown(path: Path) -> Path:
    """A path as a user of the working folder types it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def picture_address(path: Path) -> str:
    """A picture, made small, as a data URI. Raises OSError for a file that is no PNG."""
    with Image.open(path, formats=["PNG"]) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((SHEET_WIDTH, 4 * SHEET_WIDTH), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality, optimize=True)
        if stream.tell() <= SHEET_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
