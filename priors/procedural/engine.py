"""Makes procedural objects with Infinigen, one worker process at a time; see README.md beside this file.

    python priors/procedural/engine.py --install --env ENV              # the environment of Blender and Infinigen, once, 2 GB
    python priors/procedural/engine.py --out FOLDER --env ENV           # goes on where it stopped
    python priors/procedural/engine.py --out FOLDER --manifest          # only describes what is there

FOLDER gets objects/<generator>_<seed>.npz (worker.py says what they hold), made.jsonl and failed.jsonl (the workers' answers) and
manifest.jsonl.
"""

import argparse
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TRIANGLES = 10_000
"""Triangles that an object is reduced to: baking takes seconds, and 128 pixels show no more."""
FIRST_SEEDS = 3
"""Objects of each generator that has none yet, made before all others."""
WORKER_OBJECTS = 6
"""Objects after which a worker is replaced: Blender's memory grows."""
DEFAULT_LIMIT_S = 240.0
"""Seconds of processor time that an object may take, a worker's start included."""
WALL_FACTOR, POLL_S = 10.0, 2.0
"""How many times as long an object may take by the clock; seconds between two looks at it."""
DROPPED_AFTER = 4
"""Failures of a generator, without any success, after which it is left out."""
DEATHS, DEATH_S = 4, 10.0
"""Workers that may die one after another within so many seconds: more are no fault of the objects."""
log = logging.getLogger("procedural")


@dataclass(frozen=True)
class Generator:
    """One entry of generators.yaml."""

    name: str
    module: str
    words: tuple[str, ...]
    seeds: int
    limit_s: float = DEFAULT_LIMIT_S
    arguments: dict[str, Any] = field(default_factory=dict)
    spawn: dict[str, Any] = field(default_factory=dict)
    front_deg: float | None = None
    use: bool = True
    reason: str = ""
    leave_out: list[int] = field(default_factory=list)


def read_generators(path: Path) -> dict[str, Generator]:
    """The generators of a file, by name. Raises ValueError for an unknown field."""
    entries = yaml.safe_load(path.read_text())
    try:
        return {name: Generator(name, **{**entry, "words": tuple(entry["words"])}) for name, entry in entries.items()}
    except TypeError as problem:
        raise ValueError(f"{path}: {problem}") from problem


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; none where it is missing. A line cut off by a crash is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one record to a JSON-lines file."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def plan(generators: dict[str, Generator], have: set[tuple[str, int]], failed: set[tuple[str, int]]) -> list[tuple[str, int]]:
    """(generator, seed) in the order of work: first until each generator has a few objects, then all in turn, lowest seeds first."""
    n_have, n_failed = Counter(name for name, _ in have), Counter(name for name, _ in failed)
    jobs = []
    for rank, generator in enumerate(generators.values()):
        present = n_have[generator.name]
        if not generator.use or (n_failed[generator.name] >= DROPPED_AFTER and not present):
            continue
        missing = [seed for seed in range(generator.seeds) if (generator.name, seed) not in have | failed]
        for place, seed in enumerate(missing):
            is_first = present + place < FIRST_SEEDS
            jobs.append((not is_first, present + place if is_first else place, rank, generator.name, seed))
    return [(name, seed) for *_, name, seed in sorted(jobs)]


class Worker:
    """A process of worker.py, its answers read by a thread so that waiting can end."""

    def __init__(self, env: Path, noise: Path) -> None:
        settings = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        command = [str(env / "bin" / "python"), str(HERE / "worker.py")]
        with noise.open("w") as log_file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                env=os.environ | settings,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.n_asked = 0

    def _listen(self) -> None:
        """Hand on every line, and an empty one at the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, job: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """The answer to one job; a failure when the worker dies or takes too long, after which it must be replaced."""
        assert self._process.stdin is not None
        started, used = time.monotonic(), self._cpu_seconds()
        self.n_asked += 1
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"ok": False, "lost": True, "reason": "the worker died"}
        while self._cpu_seconds() - used < limit_s and time.monotonic() - started < WALL_FACTOR * limit_s:
            try:
                line = self._answers.get(timeout=POLL_S)
            except queue.Empty:
                continue
            return json.loads(line) if line else {"ok": False, "lost": True, "reason": "the worker died"}
        return {"ok": False, "lost": True, "reason": f"not within {limit_s:.0f} s of the processor"}

    def _cpu_seconds(self) -> float:
        """Processor time of the process so far (Linux): on a busy machine the clock says nothing about an object."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process, at once."""
        self._process.kill()
        self._process.wait()


def make_objects(
    jobs: list[tuple[str, int]], generators: dict[str, Generator], out: Path, env: Path
) -> Iterator[dict[str, Any]]:
    """Do the jobs in order; yields the answers, each with generator and seed."""
    worker: Worker | None = None
    deaths = 0
    try:
        for name, seed in jobs:
            generator = generators[name]
            worker = worker or Worker(env, out / "worker.log")
            job = {"generator": name, "seed": seed, "module": generator.module, "triangles": TRIANGLES}
            job |= {"arguments": generator.arguments, "spawn": generator.spawn}
            job["path"] = str((out / "objects" / f"{name}_{seed:04d}.npz").absolute())
            started = time.monotonic()
            answer = worker.ask(job, generator.limit_s)
            early = answer.get("reason") == "the worker died" and time.monotonic() - started < DEATH_S
            deaths = deaths + 1 if early else 0
            if deaths >= DEATHS:
                raise RuntimeError(f"{deaths} workers died one after another: see {out / 'worker.log'}")
            if answer.pop("lost", False) or worker.n_asked >= WORKER_OBJECTS:
                worker.close()
                worker = None
            yield {"generator": name, "seed": seed, **answer}
    finally:
        if worker is not None:
            worker.close()


def objects_in(folder: Path) -> set[tuple[str, int]]:
    """(generator, seed) of every object file in a folder."""
    names = (path.stem for path in folder.glob("*_*.npz") if not path.name.endswith(".tmp.npz"))
    return {(stem.rsplit("_", 1)[0], int(stem.rsplit("_", 1)[1])) for stem in names}


def run(generators: dict[str, Generator], out: Path, env: Path, known: list[Path]) -> None:
    """Make what is missing until nothing is; after a run of failures of one generator the plan is made anew without it."""
    (out / "objects").mkdir(parents=True, exist_ok=True)
    while True:
        have = set().union(*(objects_in(folder) for folder in [out / "objects", *known]))
        failed = {(line["generator"], line["seed"]) for line in read_lines(out / "failed.jsonl")}
        jobs = plan(generators, have, failed)
        if not jobs:
            return
        log.info("%d objects there, %d failed, %d to make", len(have), len(failed), len(jobs))
        for answer in make_objects(jobs[:60], generators, out, env):
            append_line(out / ("made.jsonl" if answer["ok"] else "failed.jsonl"), answer | {"at": round(time.time())})
            log.info("%s %d: %s", answer["generator"], answer["seed"], answer.get("reason") or answer["seconds"])


def install(env: Path) -> None:
    """Make the environment of Blender and Infinigen with this Python, which must be 3.11."""
    if sys.version_info[:2] != (3, 11):
        raise SystemExit(f"Python {sys.version.split()[0]}: Blender 4.2's module needs 3.11; call this with python3.11")
    subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    pip = [str(env / "bin" / "python"), "-m", "pip", "install"]
    subprocess.run([*pip, "--only-binary=:all:", "-r", str(HERE / "requirements.txt")], check=True)
    subprocess.run([*pip, "--no-deps", "infinigen==1.15.5"], check=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the objects")
    parser.add_argument("--env", type=Path, help="folder of the environment of Blender and Infinigen")
    parser.add_argument("--install", action="store_true", help="make that environment")
    parser.add_argument("--known", type=Path, action="append", default=[], help="a folder whose objects are not made again")
    parser.add_argument("--generators", type=Path, default=HERE / "generators.yaml")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.nice(19)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the worker ends too
    if options.install:
        install(options.env)
    if options.out:
        run(read_generators(options.generators), options.out, options.env, options.known)


if __name__ == "__main__":
    main()
