"""docs/benchmarks/performance.md: the measured ratios, a run's seconds, and how time grows."""

from collections.abc import Sequence
from pathlib import Path

from flows.benchmark.page import date_line, machine_line, table, versions_line
from flows.benchmark.performance.operations import Growth
from flows.benchmark.performance.run import StageTime
from flows.benchmark.performance.timing import Comparison, Spread
from stages.runtime.context import device_from_name
from stages.runtime.files import disk_errors_in_one_line, for_the_user

PAGE = Path("docs/benchmarks/performance.md")


def page_text(
    comparisons: Sequence[Comparison], growths: Sequence[Growth], stages: Sequence[StageTime], device: str, setting: str
) -> str:
    """The page, in Markdown. setting: threads, rounds and the like, as a sentence."""
    parts = [
        "# Performance",
        f"Written by `dreampolish bench` on {date_line()}: never by hand. {machine_line(device_from_name(device))}. "
        f"{versions_line()}. {setting} All ways of a row were called in turn, round by round, in one process: the ratios hold on a "
        "busy machine, the milliseconds do not. Medians, with the quartiles in brackets.",
        "## Beside other ways",
        "Times: how many times as long as ours another way takes.",
        table(["what", "way", "ms", "times"], [row for each in comparisons for row in _rows(each)], words=2),
        "## Growth",
        "Exponent: the slope of log time over log size; 1 is proportional, less is a fixed part.",
        table(["what", "sizes", "ms", "exponent"], [_grown(each) for each in growths]),
    ]
    if stages:
        head = ["stage", "seconds", "passes", "share in passes"]
        parts += ["## A run", _run_words(stages), table(head, [_staged(each) for each in stages])]
    return "\n\n".join(parts) + "\n"


def _rows(found: Comparison) -> list[list[str]]:
    names = list(found.milliseconds)
    return [
        [
            found.what if name == names[0] else "",
            name,
            _spread(found.milliseconds[name], 1),
            "1" if name == names[0] else _spread(found.times[name], 2),
        ]
        for name in names
    ]


def _spread(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f} to {spread.high:.{digits}f})"


def _grown(found: Growth) -> list[str]:
    sizes = ", ".join(f"{size:,.0f}" for size in found.sizes)
    return [found.what, sizes, ", ".join(f"{each:.1f}" for each in found.milliseconds), f"{found.exponent:.2f}"]


def _staged(found: StageTime) -> list[str]:
    return [found.name, f"{found.seconds:.1f}", f"{found.passes:,}", f"{found.share:.0%}"]


def _run_words(stages: Sequence[StageTime]) -> str:
    seconds, inside = sum(each.seconds for each in stages), sum(each.in_networks for each in stages)
    return (
        f"All stages: {seconds:.0f} s, {inside / max(seconds, 1e-9):.0%} of them in forward passes of the priors' U-Nets, which the "
        "method cannot do without. The LoRA's backward passes and the autoencoder are not counted among them."
    )


def write_performance(text: str) -> Path:
    """Write the page below the working folder."""
    with for_the_user(), disk_errors_in_one_line(PAGE.parent):
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)
    return PAGE
