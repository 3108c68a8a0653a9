"""Damage to a finished run's artifacts, and moves of the checkout that must change nothing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from random import Random

# Run as a script, its folder is on the path, the project is not.
sys.path.append(str(Path(__file__).parents[2]))
from schemas.artifacts import artifact_class_of
from schemas.runs import STAGES, RunRecord
from stages.runtime.files import PROJECT
from stages.runtime.store import DamagedArtifactError, LocalStore
from tests.support.damage import overwrite

FLIPS = 1000


def damage_everything(store: Path, record: RunRecord) -> tuple[dict[str, int], list[str]]:
    """Truncate every file at each tenth, flip FLIPS bits, swap files; how many of each were done, and those not detected.

    The store is left as it was.
    """
    done = {"truncations": 0, "flipped bits": 0, "swaps": 0}
    missed: list[str] = []
    artifacts = held_by(record)
    for number, (name, key) in enumerate(artifacts):
        files = sorted(path for path in (store / name / key).rglob("*") if path.is_file())
        for kind, what in _damages(files, FLIPS // len(artifacts) + (number < FLIPS % len(artifacts))):
            done[kind] += 1
            try:
                LocalStore(store).open(name, key, artifact_class_of(name))
                missed.append(f"{name}/{key[:12]}: {what}")
            except DamagedArtifactError:
                pass
        LocalStore(store).open(name, key, artifact_class_of(name))
    return done, missed


def held_by(record: RunRecord) -> list[tuple[str, str]]:
    """Folder and key of every artifact of a run: its stages' results, in order, then their scores."""
    stages = [record.stages[name] for name in STAGES if name in record.stages]
    return [
        *((entry.name, entry.fingerprint) for entry in stages),
        *(("scores", entry.scores) for entry in stages if entry.scores is not None),
    ]


def _damages(files: list[Path], flips: int) -> Iterator[tuple[str, str]]:
    """Damage after damage, each mended before the next: its kind and its words."""
    for path in files:
        content = path.read_bytes()
        for tenth in range(10):
            overwrite(path, content[: len(content) * tenth // 10])
            yield "truncations", f"{path.name} cut at {tenth}/10"
        overwrite(path, content)
    random = Random(len(files))
    for _ in range(flips):
        path = random.choice(files)
        content = bytearray(path.read_bytes())
        position = random.randrange(len(content) * 8)
        content[position // 8] ^= 1 << position % 8
        overwrite(path, content)
        yield "flipped bits", f"bit {position} of {path.name}"
        content[position // 8] ^= 1 << position % 8
        overwrite(path, content)
    for one, other in combinations(files, 2):
        contents = one.read_bytes(), other.read_bytes()
        if contents[0] == contents[1]:
            continue
        overwrite(one, contents[1])
        overwrite(other, contents[0])
        yield "swaps", f"{one.name} and {other.name}"
        overwrite(one, contents[0])
        overwrite(other, contents[1])


STALE = """
import sys
from pathlib import Path
from flows.runs.create import stale_stages
from schemas.runs import STAGES
from stages.runtime.records import read_record
store, run = Path(sys.argv[1]), sys.argv[2]
print(" ".join(stale_stages(read_record(store, run), store, STAGES)))
"""
EDITED = "dreampolish/renderers/rasterizer.py"
EDIT = ("NEAREST_DEPTH = 1e-3", "NEAREST_DEPTH = 2e-3")


def stale_elsewhere(root: Path, store: Path, run: str) -> tuple[list[str], list[str]]:
    """The stages that another process, with another hash seed, finds stale in a copy of this checkout with a new comment in EDITED; then
    after an edit of it."""
    for name in ("flows", "stages", "schemas", "dreampolish", "configs", "priors/home/judge"):
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    edited = root / EDITED
    source = edited.read_text()
    edited.write_text(f"# Moved.\n{source}")
    before = _stale_in(root, store, run)
    if source.count(EDIT[0]) != 1:
        raise RuntimeError(f"{EDITED} has no line {EDIT[0]!r} to edit")
    edited.write_text(source.replace(*EDIT))
    return before, _stale_in(root, store, run)


def _stale_in(root: Path, store: Path, run: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", STALE, str(store), run],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if answer.returncode != 0:
        raise RuntimeError(answer.stderr)
    return answer.stdout.splitlines()[-1].split()
