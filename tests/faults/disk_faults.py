"""The Nth disk operation fails, for every N: ENOSPC and EIO on open, write, fsync and rename under the store.

    python tests/faults/disk_faults.py [--every K]

Two stages run as in a run without Prefect: a plain one, then a fit with checkpoints, figures, a picture and scores that reads its
result. After each failure the store must be readable, the message must name path and free space in one line, and a second attempt must
end in the same bytes.
"""

import argparse
import builtins
import errno
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from corruption import held_by
from pydantic import BaseModel

import stages.runtime.stage
from dreampolish.optim.fit import Term, fit
from schemas.artifacts import Artifact, NerfArtifact, ReferenceArtifact, ScoresArtifact, artifact_class_of
from schemas.config.nerf import NerfConfig
from schemas.config.reference import ReferenceConfig
from schemas.config.run import Config, PriorsConfig
from schemas.runs import RunRecord
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.keys.code import Code
from stages.runtime.records import read_record, write_record
from stages.runtime.stage import Stage, stage
from stages.runtime.store import MANIFEST, LocalStore, file_refs

OPERATIONS = ("open", "write", "fsync", "rename")
CODES = (errno.ENOSPC, errno.EIO)
RUN = "00000000"


@dataclass
class Plan:
    """Which operation fails. count: how many of its kind there have been."""

    root: Path
    operation: str
    code: int
    nth: int
    count: int = 0

    def strike(self, operation: str, path: Any) -> None:
        """Raise the planned error if this is the operation meant."""
        if operation == self.operation and str(path).startswith(str(self.root)):
            self.count += 1
            if self.count == self.nth:
                raise OSError(self.code, os.strerror(self.code), str(path))


@contextmanager
def failing(plan: Plan) -> Iterator[None]:
    """Python's ways to the disk, with the plan's failure in them."""

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:  # type: ignore[override]
            plan.strike("write", self.name)
            return super().write(data)

    real = {"open": io.open, "os_open": os.open, "fsync": os.fsync, "rename": os.rename, "replace": os.replace}

    def opened(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
        plan.strike("open", file)
        if not set(mode) & set("wax+") or not isinstance(file, str | Path):
            return real["open"](file, mode, buffering, *arguments, **options)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding="utf-8", write_through=True)

    def os_opened(path: Any, *arguments: Any, **options: Any) -> int:
        plan.strike("open", path)
        return real["os_open"](path, *arguments, **options)

    def fsync(handle: int) -> None:
        plan.strike("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        real["fsync"](handle)

    def moved(name: str) -> Callable[..., None]:
        def move(source: Any, target: Any, **options: Any) -> None:
            plan.strike("rename", source)
            real[name](source, target, **options)

        return move

    try:
        builtins.open = io.open = opened  # type: ignore[assignment]
        os.open, os.fsync = os_opened, fsync  # type: ignore[assignment]
        os.rename, os.replace = moved("rename"), moved("replace")  # type: ignore[assignment]
        yield
    finally:
        builtins.open = io.open = real["open"]  # type: ignore[assignment]
        os.open, os.fsync, os.rename, os.replace = real["os_open"], real["fsync"], real["rename"], real["replace"]


class Watch:
    """Tells everything a stage can tell."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        """Figures and a picture."""
        self.stage.log(step, values)
        if step == 2:
            self.stage.image("view", step, np.zeros((4, 4, 3), np.uint8))
        return None

    def stop_requested(self) -> bool:
        """Never."""
        return False


@stage("reference", reads={})
def plain(stage: Stage, config: ReferenceConfig) -> ReferenceArtifact:
    """A file in a folder of its own."""
    path = stage.path("parts/picture.bin")
    path.write_bytes(torch.rand(64, generator=stage.generator).numpy().tobytes())
    files = dict.fromkeys(("image", "image_rgba", "mask", "normals"), path)
    said = {"prompt": "a chair", "elevation_deg": 0.0, "is_user_image": True}
    return stage.publish(ReferenceArtifact, metrics={}, candidates=None, **files, **said)


class Scorer:
    """A figure and two files."""

    def key(self, run: RunContext, artifact: Artifact, reference: Artifact, settings: BaseModel) -> str:
        """Of the result."""
        return artifact.fingerprint[::-1]

    def compute(self, stage: Stage, artifact: Artifact, reference: Artifact, settings: BaseModel) -> ScoresArtifact:
        """What the result's file holds."""
        assert isinstance(artifact, NerfArtifact)
        previews = [stage.path(f"preview-{index}.bin") for index in range(2)]
        for path in previews:
            path.write_bytes(stage.locate(artifact, artifact.field).read_bytes()[::-1])
        return stage.publish(ScoresArtifact, metrics={"psnr": 20.0}, previews=previews)


@stage("nerf", reads={"reference": ("image",)}, scorer=Scorer())
def fitted(stage: Stage, reference: ReferenceArtifact, config: NerfConfig) -> NerfArtifact:
    """A fit that starts from the other stage's file."""
    seen = np.frombuffer(stage.locate(reference, reference.image).read_bytes()[:12], np.float32)
    weight = torch.nn.Parameter(torch.from_numpy(seen.copy()))

    def losses(step: int) -> dict[str, Term]:
        return {"square": Term((weight - torch.randn(3, generator=stage.generator)).square().sum(), 1.0)}

    module = torch.nn.ParameterDict({"weight": weight})
    optimizer = torch.optim.Adam([weight], lr=0.1)
    fit(losses, optimizer, lambda step: 1.0, 4, stage.generator, {"weight": module}, stage.checkpoints, Watch(stage))
    path = stage.path("field.bin")
    path.write_bytes(weight.detach().numpy().tobytes())
    return stage.publish(NerfArtifact, metrics={}, field=path, field_config={}, occupancy=path, steps=4, switch_reason="cap")


def two_stages(store: Path) -> None:
    """Compute or find both results and the scores."""
    run = RunContext(run_id=RUN, store=store, seed=0, device="cpu", threads=1, checkpoint_interval=2, priors=PriorsConfig())
    fitted.compute(run, plain.compute(run, Config().reference), Config().nerf)


def new_store(store: Path) -> None:
    """An empty one with the run's record."""
    shutil.rmtree(store, ignore_errors=True)
    write_record(store, RunRecord(run=RUN, prompt="a chair", config=Config(), created="now"))


def hashes(store: Path) -> list[tuple[str, str]]:
    """All files that the run has led to, verified, with their hashes."""
    record = read_record(store, RUN)
    found = []
    for folder, key in held_by(record):
        artifact = LocalStore(store).open(folder, key, artifact_class_of(folder))
        found += [(f"{folder}/{key}/{each.path}", each.sha256) for each in file_refs(artifact)]
    return found


def attempt(root: Path, operation: str, code: int, nth: int, expected: Sequence[tuple[str, str]]) -> tuple[bool, list[str]]:
    """One failure; whether there were that many operations at all, and what went wrong besides it."""
    store, wrong = root / "store", list[str]()
    new_store(store)
    plan = Plan(root, operation, code, nth)
    where = f"{operation} {nth}, {errno.errorcode[code]}"
    ended = False
    with failing(plan):
        try:
            two_stages(store)
            ended = True
        except StageError as error:
            told = str(error)
            if str(root) not in told or os.strerror(code) not in told or "free" not in told or "\n" in told:
                wrong.append(f"{where}: told as {told!r}")
        except BaseException as error:
            wrong.append(f"{where}: {type(error).__name__}: {error}")
    # Where only tidying up failed.
    if ended and hashes(store) != expected:
        wrong.append(f"{where}: other bytes were published")
    for manifest in store.glob(f"*/*/{MANIFEST}"):
        folder, key = manifest.parent.parent.name, manifest.parent.name
        LocalStore(store).open(folder, key, artifact_class_of(folder))
    read_record(store, RUN)
    two_stages(store)
    if hashes(store) != expected:
        wrong.append(f"{where}: the second attempt gave other bytes")
    return plan.count >= nth, wrong


def disk_faults(root: Path, every: int) -> tuple[dict[str, int], list[str]]:
    """How many operations of each kind failed in turn, by `operation code`, and everything that went wrong."""
    stages.runtime.stage.function_code = lambda function, name: Code(name, frozenset(), frozenset())
    root.mkdir(parents=True, exist_ok=True)
    new_store(root / "whole")
    two_stages(root / "whole")
    expected = hashes(root / "whole")
    tried: dict[str, int] = {}
    wrong: list[str] = []
    for operation in OPERATIONS:
        for code in CODES:
            nth, more = 1, True
            while more:
                more, found = attempt(root / "try", operation, code, nth, expected)
                wrong += found
                tried[f"{operation} {errno.errorcode[code]}"] = tried.get(f"{operation} {errno.errorcode[code]}", 0) + more
                nth += every
    return tried, wrong


def main() -> None:
    """Every Kth failure; exit 1 if one was not met well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1)
    every = parser.parse_args().every
    with tempfile.TemporaryDirectory(prefix="disk-faults-") as root:
        tried, wrong = disk_faults(Path(root).resolve(), every)
    sys.stderr.write("\n".join([*wrong, f"{tried}"]) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
