"""Every fault test there is, and docs/reliability.md from what they found: `make test-faults`.

python tests/faults/all_faults.py --document docs/reliability.md [--jobs N]
"""

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# Before torch and transformers are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
# Nobody is called there: without one, Prefect would start a server.
os.environ.setdefault("PREFECT_API_URL", "http://127.0.0.1:9/api")

from cells import MOMENTS, SIGNALS, WORDS, all_cells, has
from commands import Commands, command_cells
from corruption import EDITED, damage_everything, stale_elsewhere
from disk_faults import disk_faults
from kill_matrix import Forks, Matrix, Outcome, in_fork, run_cells
from starts import MOMENTS as STARTS
from starts import killed_starts

from flows.service.environment import quiet_environment
from schemas.runs import STAGES
from stages.runtime.records import read_record

STOP_LIMIT_S = 30.0


@dataclass(frozen=True)
class Found:
    """What all tests found. wrong: one line each, empty when all is well."""

    cells: Sequence[Outcome]
    commands: Sequence[Outcome]
    lookup_s: float
    computing_s: float
    disk: Mapping[str, int]
    damages: Mapping[str, int]
    edited: Sequence[str]
    minutes: float
    wrong: Sequence[str]


def find(root: Path, jobs: int, minutes: float) -> Found:
    """Run everything; no cell of the matrix is begun after so many minutes."""
    started = time.monotonic()
    matrix = Matrix(root, Forks())
    lookup_s, computing_s = matrix.prepare()
    # In a fork: this process must not have computed gradients before it forks for the cells.
    told = root / "disk.json"
    code, _ = in_fork(lambda: told.write_text(json.dumps(disk_faults(root / "disk", 1))), root / "disk.log")
    disk, bad = json.loads(told.read_text()) if code == 0 else ({}, [(root / "disk.log").read_text().splitlines()[-1]])
    wrong = list(bad)
    store = matrix.whole / "store"
    damages, missed = damage_everything(store, read_record(store, matrix.run))
    moved, edited = stale_elsewhere(root / "elsewhere", store, matrix.run)
    wrong += [f"not detected: {line}" for line in missed] + [f"stale in a moved checkout: {name}" for name in moved]
    wrong += [] if edited else [f"an edit of {EDITED} makes nothing stale"]
    outcomes = run_cells(matrix, all_cells(), jobs, minutes - (time.monotonic() - started) / 60)
    wrong += [f"{each.stage}, {WORDS[each.moment]}, {each.signal}: {line}" for each in outcomes for line in each.wrong]
    matrix.way = Commands()
    commands = run_cells(matrix, command_cells(), jobs, minutes - (time.monotonic() - started) / 60)
    wrong += [
        f"the command, {each.stage}, {WORDS[each.moment]}, {each.signal}: {line}" for each in commands for line in each.wrong
    ]
    wrong += [f"a killed start, {line}" for line in killed_starts(root / "starts" / "store", list(STARTS))]
    late = [*_late(outcomes), *_late(commands)]
    wrong += [f"{each.stage}, {each.moment}, {each.signal}: ended after {each.stopped_s:.0f} s" for each in late]
    return Found(outcomes, commands, lookup_s, computing_s, disk, damages, edited, (time.monotonic() - started) / 60, wrong)


def _late(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [each for each in outcomes if each.signal != "SIGKILL" and each.stopped_s > STOP_LIMIT_S]


def _slowest(outcomes: Sequence[Outcome]) -> float:
    """Seconds from SIGTERM or SIGINT to the end, at most."""
    return max((each.stopped_s for each in outcomes if each.signal != "SIGKILL"), default=0.0)


WHOLE = (
    "Each cell: the run is cut off in that stage, at that moment, by that signal; one `resume` follows. `whole` means:",
    "",
    "- The resumed run ended with every file hash of the undisturbed run.",
    "- It ended with every figure of the undisturbed run.",
    "- No published stage was computed again.",
    "- No figure is missing from the journals or stands there twice.",
    "- No checkpoint, work folder or lock is left over.",
    "",
    "Reference and export have no checkpoints: there the first column is before the first file, the second inside a file's write.",
    "Cut off while its scores are made, a stage's result must stand whole, and the scores alone are made anew; the reference has none.",
    "The cells call the stages without Prefect.",
    "",
)
"""What the table's cells mean."""


def page(found: Found) -> str:
    """docs/reliability.md."""
    whole = sum(not each.wrong for each in found.cells)
    missing = len(all_cells()) - len(found.cells)
    left = f"; {missing} not run for want of time" if missing else ""
    slowest = _slowest(found.cells)
    machine = f"{os.cpu_count()} CPU cores, Python {platform.python_version()}"
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "# Reliability",
        "",
        f"Written by `make test-faults` on {date}, {machine}, {found.minutes:.0f} minutes. The pipeline is the real one,",
        "all its stages, at the smallest sizes and with tiny random priors.",
        "",
        "## Cut off at any moment",
        "",
        *WHOLE,
        f"{whole} of {len(found.cells)} cells whole{left}. A run ended within {slowest:.1f} s of its SIGTERM or SIGINT.",
        "",
        "| stage | signal | " + " | ".join(WORDS[moment] for moment in MOMENTS) + " |",
        "|---" * (len(MOMENTS) + 2) + "|",
    ]
    by_cell = {(each.stage, each.signal, each.moment): each for each in found.cells}
    for stage in STAGES:
        for number in SIGNALS:
            row = [by_cell.get((stage, number, moment)) for moment in MOMENTS]
            told = ["not run" if each is None else "whole" if not each.wrong else each.wrong[0] for each in row]
            words = [word if has(stage, moment) else "-" for word, moment in zip(told, MOMENTS, strict=True)]
            lines.append(f"| {stage} | {number} | {' | '.join(words)} |")
    lines += ["", "## The command, cut off", "", *_of_commands(found.commands), "", "## The disk fails", ""]
    lines += [
        "The Nth operation under the store fails, for every N, while two stages and the scores of one are computed as in a run. After each",
        "the store was readable, the message named path and free space in one line, and a second attempt gave the same bytes.",
        *("", "| operation and error | operations failed in turn |", "|---|---|"),
        *(f"| {name} | {count} |" for name, count in found.disk.items()),
        "",
        *_of_starts(found),
        "## Damage",
        "",
        f"Of the run's results and scores: {', '.join(f'{count} {kind}' for kind, count in found.damages.items())}; all detected before use"
        if not any(line.startswith("not detected") for line in found.wrong)
        else "Not all damage was detected, see below",
        "(truncations at each tenth of every file; swaps of every two files of an artifact; manifests included).",
        "",
        "## The same is the same",
        "",
        "In another process, with another hash seed, in a moved checkout with a comment more: no stage of the run is stale. After an edit",
        f"of `{EDITED}` there: {', '.join(found.edited)}.",
        f"An unchanged run computes nothing: all {len(STAGES)} stages were looked up and verified, and the output folder written, in "
        f"{found.lookup_s:.1f} s of CPU time; making the run, at the smallest sizes, took {found.computing_s:.1f} s.",
    ]
    lines += ["", "## Wrong", "", *(f"- {line}" for line in found.wrong)] if found.wrong else []
    return "\n".join(lines) + "\n"


def _of_starts(found: Found) -> list[str]:
    """The section of killed starts."""
    return [
        "## A start, killed",
        "",
        f"With `dreampolish up`: worker and run are killed by SIGKILL while the run is {', '.join(STARTS)}. `doctor` names it, `up`",
        "marks it crashed, and the next run gets its place in the queue"
        + (", but see below." if any(line.startswith("a killed start") for line in found.wrong) else "."),
        "",
    ]


def _of_commands(commands: Sequence[Outcome]) -> list[str]:
    """The section of whole commands."""
    by_cell = {(each.stage, each.signal): each for each in commands}
    rows = []
    for stage in STAGES:
        found = [by_cell.get((stage, number)) for number in SIGNALS]
        words = [f"{WORDS[each.moment]}: {'; '.join(each.wrong) or 'whole'}" if each else "not run" for each in found]
        rows.append(f"| {stage} | {' | '.join(words)} |")
    return [
        "The same with `dreampolish resume` itself: a process of its own, with Prefect's server and flow, which takes SIGTERM for itself,",
        "and with MLflow. One moment for each stage and signal. `whole` means the same, but for the journals, which MLflow has read by",
        "then; a command cut off by SIGTERM or SIGINT ended with 130, its last line naming the command that goes on (in export, which",
        "has no steps to stop between, it may have come to its end).",
        "",
        f"{sum(not each.wrong for each in commands)} of {len(commands)} whole. A command ended within {_slowest(commands):.1f} s of its",
        "signal.",
        "",
        "| stage | " + " | ".join(SIGNALS) + " |",
        "|---" * (len(SIGNALS) + 1) + "|",
        *rows,
    ]


def main() -> None:
    """Run, write, exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--document", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cell of the kill matrix after that")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    options = parser.parse_args()
    document = options.document.resolve()
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        quiet_environment(Path(root) / "store")
        found = find(Path(root).resolve(), options.jobs, options.minutes)
    document.write_text(page(found))
    sys.stderr.write("\n".join([*found.wrong, f"{len(found.wrong)} wrong; {document} written"]) + "\n")
    sys.exit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
