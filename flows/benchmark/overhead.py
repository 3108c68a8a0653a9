"""What orchestration and logging cost: whole runs beside the same stages called as plain functions, each in a process of its own.

`python -m flows.benchmark.overhead PROMPT PRESET [SETTING ...]` is the plain side: no Prefect run, no journal, no tracker, no previews
of steps, but the same checks, stages, store and output folder.
"""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev

from pydantic import TypeAdapter

from dreampolish.optim.atomic_files import write_atomically
from flows.runs.console import say
from stages.runtime.errors import StageError
from stages.runtime.files import store_folder

LEAST_PAIRS = 3
"""Below it a standard error says little."""
LIMIT = 0.02
"""Share of a run's time that orchestration and logging may take."""
OURS = ("PREFECT_", "MLFLOW_", "DREAMPOLISH_")
"""Variables of this process that a measured one must not inherit."""


@dataclass(frozen=True)
class Cost:
    """Of one process, seconds: from start to end, and of processor time with that of its children."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Pair:
    """One run and its plain twin, measured one after the other."""

    run: Cost
    plain: Cost


@dataclass(frozen=True)
class Overhead:
    """What was measured. settings: changed ones. pairs: in the order they were measured."""

    prompt: str
    preset: str
    settings: tuple[str, ...]
    date: str
    pairs: tuple[Pair, ...]

    def share(self, kind: str) -> float:
        """(run - plain) / run, the mean over pairs. kind: wall or cpu."""
        return mean(self._shares(kind))

    def share_error(self, kind: str) -> float:
        """The standard error of `share`; infinite for a single pair."""
        shares = self._shares(kind)
        return stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else math.inf

    def _shares(self, kind: str) -> list[float]:
        both = [(getattr(pair.run, kind), getattr(pair.plain, kind)) for pair in self.pairs]
        return [(run - plain) / run for run, plain in both]

    def share_text(self, kind: str) -> str:
        """In per cent, with the standard error where there is one."""
        error = self.share_error(kind)
        return f"{self.share(kind):.1%}" + (f" ± {error:.1%}" if math.isfinite(error) else "")

    @property
    def verdict(self) -> str:
        """Whether the share of the wall time keeps the limit, at two standard errors."""
        share, error = self.share("wall"), self.share_error("wall")
        if len(self.pairs) < LEAST_PAIRS:
            return f"too few pairs to tell it from chance; {LIMIT:.0%} are wanted at most"
        if share + 2 * error < LIMIT:
            return f"within the {LIMIT:.0%} wanted"
        if share - 2 * error > LIMIT:
            return f"**above** the {LIMIT:.0%} wanted"
        return f"these pairs do not tell whether it is within the {LIMIT:.0%} wanted"


def measure_overhead(prompt: str, preset: str, settings: Sequence[str], n_pairs: int) -> Overhead:
    """Measure pairs, the side that begins taking turns; databases are made and caches warmed before, by a `smoke` run on each side.

    Raises StageError where a measured process fails.
    """
    pairs = []
    for number in range(n_pairs):
        say(f"orchestration, pair {number + 1} of {n_pairs}")
        sides = ("run", "plain") if number % 2 == 0 else ("plain", "run")
        costs = {side: _measured(side, prompt, preset, settings) for side in sides}
        pairs.append(Pair(costs["run"], costs["plain"]))
        say(f"  run {costs['run'].wall:.1f} s, plain {costs['plain'].wall:.1f} s")
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Overhead(prompt, preset, settings=tuple(settings), date=date, pairs=tuple(pairs))


def _measured(side: str, prompt: str, preset: str, settings: Sequence[str]) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        _process(side, prompt=prompt, preset="smoke", settings=[], folder=Path(folder))
        return _process(side, prompt=prompt, preset=preset, settings=settings, folder=Path(folder))


def _process(side: str, prompt: str, preset: str, settings: Sequence[str], folder: Path) -> Cost:
    """Start one side in `folder`, which holds its store and outputs, and wait for it."""
    if side == "run":
        command = ["-m", "flows.cli", "run", prompt, "--preset", preset]
        command += [part for setting in settings for part in ("--set", setting)]
    else:
        command = ["-m", "flows.benchmark.overhead", prompt, preset, *settings]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment = {**inherited, "DREAMPOLISH_STORE": str(folder / "store")}
    before = os.times()
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    after = os.times()
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise StageError(f"the measured {side} ended with {done.returncode}: {last}", None, "run the command by itself")
    children = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return Cost(after.elapsed - before.elapsed, children)


def write_overhead(store: Path, overhead: Overhead) -> None:
    """Keep a measurement beside the store's runs, for the page; it replaces an earlier one of the same prompt, preset and settings."""
    others = [one for one in read_overheads(store) if replace(one, date=overhead.date, pairs=overhead.pairs) != overhead]
    write_atomically(_kept(store), TypeAdapter(list[Overhead]).dump_json([*others, overhead]))


def read_overheads(store: Path) -> list[Overhead]:
    """The last measurement of each prompt, preset and settings; none before the first."""
    if not _kept(store).is_file():
        return []
    return TypeAdapter(list[Overhead]).validate_json(_kept(store).read_bytes())


def _kept(store: Path) -> Path:
    return store / "benchmark-overhead.json"


def plain_run(prompt: str, preset: str, settings: Sequence[str], store: Path) -> str:
    """All stages as plain functions; the output folder."""
    import torch

    from flows.report.output import write_output
    from flows.runs.chain import CHAIN
    from flows.runs.create import new_run
    from schemas.artifacts import Artifact, StageName
    from schemas.runs import STAGES
    from stages.runtime.command import compute_recorded
    from stages.runtime.context import context_of
    from stages.runtime.records import read_record
    from stages.runtime.shared.stores import store_at

    record = new_run(store, prompt, preset, settings, image=None)
    context = context_of(record, store, tracking_uri=None, show_progress=False).model_copy(update={"log_steps": False})
    torch.set_num_threads(context.threads)
    artifacts: dict[StageName, Artifact] = {}
    for name in STAGES:
        artifacts[name] = compute_recorded(CHAIN[name], record, context, artifacts)
    return str(write_output(read_record(store, record.run), store_at(store), Path("outputs")).output)


if __name__ == "__main__":
    from flows.service.environment import quiet_environment

    quiet_environment(store_folder())
    sys.stdout.write(plain_run(sys.argv[1], sys.argv[2], sys.argv[3:], store_folder()) + "\n")
