"""The kill matrix: every stage cut off at every moment by every signal, then one `resume`, compared with the undisturbed run.

    python tests/faults/kill_matrix.py [--only reference-early-SIGKILL ...] [--jobs N] [--json FILE]

One process imports everything once; each run happens in a fork of it. Runs go through the flow's own function, as `dreampolish resume`
does, with Prefect's flow and the task around each stage taken off and the tracker away (its journals then hold everything that was told).
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Before torch and transformers are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
# Nobody is called there: without one, Prefect would start a server.
os.environ.setdefault("PREFECT_API_URL", "http://127.0.0.1:9/api")

from cells import FIRED, OF_SCORES, Cell, all_cells, lay_hook
from corruption import held_by

# Run as a script, its folder is on the path, the project is not.
sys.path.append(str(Path(__file__).parents[2]))
import stages.results.scores
import stages.runtime.stage
from dreampolish.metrics.judge import load_alignment
from dreampolish.optim.fit import FitInterruptedError
from flows.runs.chain import CHAIN
from flows.service.environment import quiet_environment
from flows.text_to_3d import text_to_3d
from schemas.artifacts import artifact_class_of
from schemas.config.run import PriorsConfig
from schemas.runs import STAGES, RunRecord
from stages.runtime.command import AnyStage
from stages.runtime.context import context_of
from stages.runtime.files import PROJECT
from stages.runtime.keys.code import code_of
from stages.runtime.keys.key import prior_digests
from stages.runtime.records import read_record, write_record
from stages.runtime.stage import function_code
from stages.runtime.store import MANIFEST, DamagedArtifactError, LocalStore, file_refs
from stages.runtime.tracking.journal import Journal
from tests.support.tiny_priors import tiny_run, write_picture, write_priors

LIMIT_S = 30.0
"""From a first SIGINT or SIGTERM to the end of the process."""


@dataclass(frozen=True)
class Outcome:
    """How one cell went. wrong: what differs from an undisturbed run, empty when all is well. stopped_s: from signal to end."""

    stage: str
    moment: str
    signal: str
    wrong: list[str]
    stopped_s: float
    resumed_s: float
    states: dict[str, str]


def plain_task(task: AnyStage) -> Any:
    """What a stage's task gives, without Prefect."""
    return lambda call, return_state, **parents: task._as_task(call, **parents)


def frozen_code() -> None:
    """Take the code as it was imported, whatever is edited meanwhile."""
    code = {name: function_code(task._function, name) for name, task in CHAIN.items()}
    stages.runtime.stage.function_code = lambda function, name: code[name]
    scores = code_of("stages.results.scores", "compute_scores", PROJECT, ends=("stages.runtime",))
    stages.results.scores.code_of = lambda *_, **__: scores  # type: ignore[assignment]


def in_fork(work: Callable[[], object], log: Path) -> tuple[int, float]:
    """Do work in a child; its exit code (negative: a signal; 130: stopped; 1: an error, in the log) and the seconds of CPU it took."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except (FitInterruptedError, KeyboardInterrupt):
            code = 130
        except BaseException:
            log.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def resume(root: Path, run: str, cell: Cell | None) -> None:
    """What `dreampolish resume RUN` computes, in this process."""
    os.chdir(root)
    os.environ["DREAMPOLISH_STORE"] = str(root / "store")
    for task in CHAIN.values():
        task.task = plain_task(task)
    Journal._failure = lambda self, place, wait_s: OSError("away")  # type: ignore[method-assign]
    if cell is not None:
        lay_hook(cell)
    text_to_3d.fn(prompt="-", run=run)


def hashes(store: Path, record: RunRecord) -> dict[str, Any]:
    """Everything a finished run amounts to: keys, file hashes and figures of its artifacts and their scores, all verified."""
    found: dict[str, Any] = {name: [entry.metrics] for name, entry in record.stages.items()}
    owners = {key: name for name, entry in record.stages.items() for key in (entry.fingerprint, entry.scores)}
    for folder, key in held_by(record):
        artifact = LocalStore(store).open(folder, key, artifact_class_of(folder))
        files = sorted((each.path, each.sha256) for each in file_refs(artifact))
        found[owners[key]].append([folder, key, files, artifact.metrics])
    return found


Key = tuple[str, str]
"""Folder and name of an artifact in the store."""


def published(store: Path) -> dict[Key, tuple[int, int]]:
    """Inode and time of every manifest: what is computed twice has another."""
    found = {(path.parent.parent.name, path.parent.name): path.stat() for path in store.glob(f"*/*/{MANIFEST}")}
    return {key: (status.st_ino, status.st_mtime_ns) for key, status in found.items()}


def damaged(store: Path) -> list[str]:
    """What is published and not whole."""
    found = []
    for folder, key in published(store):
        try:
            LocalStore(store).open(folder, key, artifact_class_of(folder))
        except DamagedArtifactError as error:
            found.append(f"cut off, it left damage: {error}")
    return found


def told(store: Path, run: str, stages: Sequence[str]) -> tuple[set[tuple[str, int]], list[str]]:
    """The (figure, step) points in the journals of some stages, and those that stand there twice."""
    points: set[tuple[str, int]] = set()
    twice = []
    for path in (store / "journals" / run).glob("*.jsonl"):
        if path.stem.partition("-")[0] not in stages:
            continue
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            for key in entry.get("metrics", {}):
                point = (f"{path.stem.partition('-')[0]}:{key}", entry["step"])
                twice += [f"{point} is told twice"] if point in points else []
                points.add(point)
    return points, twice


class Forks:
    """The way in which the cells' runs are resumed: in forks of this process."""

    name = "forks"

    def resumed(self, root: Path, folder: Path, run: str, cell: Cell | None, log: Path) -> int:
        """Resume the run in a folder, cut off as the cell says; the exit code. What was said is in the log. root: of all cells."""
        return in_fork(lambda: resume(folder, run, cell), log)[0]

    def untold(self, cell: Cell, run: str, folder: Path, whole: Path) -> list[str]:
        """What is missing from the journals from the cell's stage on, beside those of the undisturbed run, or stands there twice."""
        later = STAGES[STAGES.index(cell.stage) :]
        points, twice = told(folder / "store", run, later)
        expected, _ = told(whole / "store", run, later)
        return [*twice, *[f"{point} is not told" for point in sorted(expected - points)]]


class Matrix:
    """The undisturbed run, and the cells beside it."""

    def __init__(self, root: Path, way: Forks) -> None:
        self.root, self.way = root, way
        self.priors, self.picture = write_priors(root / "priors"), write_picture(root / "picture.png")
        self.run = ""
        self.whole = root / "whole"

    def prepare(self) -> tuple[float, float]:
        """Warm this process, make the undisturbed run, and look it up once more, when nothing runs; CPU seconds of look-up and run."""
        load_alignment(PROJECT / PriorsConfig().judge.source)
        self.whole.mkdir()
        record = tiny_run(self.whole / "store", self.priors, self.picture)
        self.run = record.run
        context = context_of(record, self.whole / "store", None, show_progress=False)
        prior_digests(context, "text", "view", "normals", "judge")
        frozen_code()
        computing = self._must(self.whole)
        before = published(self.whole / "store")
        seconds = self._must(self.whole)
        record = read_record(self.whole / "store", self.run)
        if published(self.whole / "store") != before or {entry.state for entry in record.stages.values()} != {"cached"}:
            raise SystemExit("a second look at the undisturbed run computed something")
        return seconds, computing

    def _must(self, folder: Path) -> float:
        code, seconds = in_fork(lambda: resume(folder, self.run, None), folder / "error.log")
        if code != 0:
            raise SystemExit(f"the undisturbed run ended with {code}:\n{(folder / 'error.log').read_text()}")
        return seconds

    def copy_before(self, cell: Cell) -> Path:
        """A store in which the run has got just before the cell's stage."""
        folder = self.root / f"cells-{self.way.name}" / cell.name
        store, done = folder / "store", STAGES[: STAGES.index(cell.stage)]
        record = read_record(self.whole / "store", self.run)
        kept = {name: entry for name, entry in record.stages.items() if name in done}
        before = record.model_copy(update={"stages": kept, "output": None})
        for name in ("inputs", *(f"{place}/{key}" for place, key in held_by(before))):
            shutil.copytree(self.whole / "store" / name, store / name)
        write_record(store, before)
        return folder

    def outcome(self, cell: Cell) -> Outcome:
        """Cut off, resume once, compare."""
        folder = self.copy_before(cell)
        store, wrong = folder / "store", list[str]()
        hard = cell.signal == "SIGKILL"
        code = self.way.resumed(self.root, folder, self.run, cell, folder / "first.log")
        ended, fired = time.time(), folder / FIRED
        stopped_s = ended - fired.stat().st_mtime if fired.is_file() else math.inf
        wrong += [] if fired.is_file() else ["it never got to the moment"]
        # The last stage has no steps to stop between: once it writes, it may as well end.
        last = cell.stage == STAGES[-1]
        finished = code == 0 and not hard and last and read_record(store, self.run).output is not None
        if code != (-9 if hard else 130) and not finished:
            wrong.append(f"cut off, it ended with {code}{_tail(folder / 'first.log')}")
        stood = published(store)
        wrong += [*damaged(store), *self._of_scores(cell, stood)]
        code = self.way.resumed(self.root, folder, self.run, None, folder / "second.log")
        resumed = time.time()
        if code != 0:
            wrong.append(f"resumed, it ended with {code}{_tail(folder / 'second.log')}")
        states: dict[str, str] = {}
        if not wrong:
            record = read_record(store, self.run)
            states = {name: entry.state for name, entry in record.stages.items()}
            wrong += [*self._differences(folder, record, stood), *self.way.untold(cell, self.run, folder, self.whole)]
        if not wrong:
            shutil.rmtree(folder)
        return Outcome(cell.stage, cell.moment, cell.signal, wrong, stopped_s, resumed - ended, states)

    def _of_scores(self, cell: Cell, stood: dict[Key, tuple[int, int]]) -> list[str]:
        """What is wrong after a cut while scores were made: the stage's result must stand, and after a kill they must not."""
        entry = read_record(self.whole / "store", self.run).stages[cell.stage]
        if cell.moment not in OF_SCORES:
            return []
        wrong = [] if (cell.stage, entry.fingerprint) in stood else ["its result was not published before its scores were made"]
        there = cell.signal == "SIGKILL" and ("scores", entry.scores) in stood
        return [*wrong, "its scores stand, though they were cut off"] if there else wrong

    def _differences(self, folder: Path, record: RunRecord, stood: dict[Key, tuple[int, int]]) -> list[str]:
        store, undisturbed = folder / "store", read_record(self.whole / "store", self.run)
        mine, theirs = hashes(store, record), hashes(self.whole / "store", undisturbed)
        wrong = [f"{name} differs from the undisturbed run's" for name in STAGES if mine.get(name) != theirs[name]]
        now = published(store)
        wrong += [f"{key[0]} was published and computed again" for key, status in stood.items() if now.get(key) != status]
        wrong += [
            f"{name} was published and is {entry.state}"
            for name, entry in record.stages.items()
            if (name, entry.fingerprint) in stood and entry.state != "cached"
        ]
        leavings = [path for path in store.rglob("*") if "partial" in path.name or path.parent.name in ("work", "checkpoints")]
        wrong += [f"{path.relative_to(store)} is left" for path in leavings]
        if record.output is None or not (Path(record.output) / "asset.glb").is_file():
            wrong.append("there is no output")
        return wrong


def _tail(log: Path) -> str:
    return f": {log.read_text().strip().splitlines()[-1]}" if log.is_file() else ""


def run_cells(matrix: Matrix, cells: Sequence[Cell], jobs: int, minutes: float) -> list[Outcome]:
    """The cells, some at a time, told one by one on the error stream; none is begun after so many minutes."""
    until = time.monotonic() + 60 * minutes
    outcomes: dict[str, Outcome] = {}
    waiting, running = list(cells), dict[int, Cell]()
    results = matrix.root / f"results-{matrix.way.name}"
    results.mkdir()
    while waiting or running:
        if time.monotonic() > until:
            waiting.clear()
        while waiting and len(running) < jobs:
            cell = waiting.pop(0)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    (results / f"{cell.name}.json").write_text(json.dumps(asdict(matrix.outcome(cell))))
                    code = 0
                finally:
                    os._exit(code)
            running[pid] = cell
        if not running:
            break
        pid, status = os.wait()
        cell = running.pop(pid)
        file = results / f"{cell.name}.json"
        outcomes[cell.name] = (
            Outcome(**json.loads(file.read_text()))
            if status == 0
            else Outcome(cell.stage, cell.moment, cell.signal, [f"the test itself ended with {status}"], 0.0, 0.0, {})
        )
        done = outcomes[cell.name]
        sys.stderr.write(
            f"{cell.name:<32} {'; '.join(done.wrong) or 'whole'} ({done.stopped_s:.1f} s, {done.resumed_s:.1f} s)\n"
        )
    return [outcomes[cell.name] for cell in cells if cell.name in outcomes]


def main(way: Forks, offered: Sequence[Cell]) -> None:
    """Run the named cells of those offered, or all; exit 1 if one is not whole."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[], metavar="STAGE-MOMENT-SIGNAL")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cell after that")
    parser.add_argument("--json", type=Path, help="where the outcomes go")
    options = parser.parse_args()
    if unknown := set(options.only) - {cell.name for cell in offered}:
        parser.error(f"no such cells: {', '.join(sorted(unknown))}; there are {', '.join(cell.name for cell in offered)}")
    cells = [cell for cell in offered if not options.only or cell.name in options.only]
    with tempfile.TemporaryDirectory(prefix="kill-matrix-") as root:
        quiet_environment(Path(root) / "store")
        matrix = Matrix(Path(root), way)
        matrix.prepare()
        outcomes = run_cells(matrix, cells, options.jobs, options.minutes)
    if options.json is not None:
        options.json.write_text(json.dumps({"cells": [asdict(each) for each in outcomes]}, indent=1))
    sys.exit(1 if any(each.wrong for each in outcomes) else 0)


if __name__ == "__main__":
    main(Forks(), all_cells())
