"""What a user reads on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.runtime.tracking.messages import duration, write_line

if TYPE_CHECKING:
    from schemas.runs import RunRecord, StageRecord

SHOWN = ("reference_psnr", "psnr", "ssim", "alignment", "triangles", "components", "normal_agreement", "glb_mib")
"""Figures that a stage's line shows, those it has of them."""


def stage_line(entry: "StageRecord", notes: Sequence[str]) -> None:
    """One line on the error stream: name, state, seconds, figures; then the stage's notes."""
    figures = "  ".join(f"{key} {_figure(entry.metrics[key])}" for key in SHOWN if key in entry.metrics)
    say(f"{entry.name:<10} {entry.state:<9} {duration(entry.seconds):>12}  {figures}".rstrip())
    for note in notes:
        say(f"           {note}")


def say(text: str) -> None:
    """A line on the error stream."""
    write_line(text, "error")


def answer(text: str) -> None:
    """A line on the output stream."""
    write_line(text, "out")


def summary(record: "RunRecord") -> dict[str, object]:
    """A run as the JSON that `--json` prints."""
    fields = ("name", "state", "seconds", "fingerprint", "metrics")
    stages = [{key: getattr(entry, key) for key in fields} for entry in record.stages.values()]
    return {"run": record.run, "output": record.output, "stages": stages}


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
