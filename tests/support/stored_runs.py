"""Small true runs in a store: published results, scores, a picture, journals and a record."""

import hashlib
import os
import time
from pathlib import Path

from dreampolish.optim.atomic_files import sha256_of
from schemas.artifacts import Artifact, FileRef, NerfArtifact, ScoresArtifact
from schemas.config.run import Config
from schemas.runs import RunRecord, StageRecord
from stages.runtime.records import write_record
from stages.runtime.store import LocalStore
from stages.runtime.tracking.journal import Journal

PAYLOAD_BYTES = 4096


def key_of(words: str) -> str:
    """A key that stands for words."""
    return hashlib.sha256(words.encode()).hexdigest()


def published(store: Path, words: str, place: str = "nerf") -> Artifact:
    """A result, or scores, whose files differ from those of other words."""
    local, key = LocalStore(store), key_of(f"{place} {words}")
    if local.has(place, key):
        return local.open(place, key, NerfArtifact if place == "nerf" else ScoresArtifact)
    work = local.work_folder(place, key)
    (work / "parts").mkdir()
    (work / "parts/field.bin").write_bytes((key * PAYLOAD_BYTES).encode()[:PAYLOAD_BYTES])
    file = FileRef(path="parts/field.bin", sha256=sha256_of(work / "parts/field.bin"), bytes=PAYLOAD_BYTES)
    common = {"fingerprint": key, "parents": {}, "metrics": {}, "seconds": 1, "peak_memory": 1}
    if place == "scores":
        return local.publish(work, ScoresArtifact.model_validate({**common, "previews": [file]}))
    more = {"field": file, "field_config": {}, "occupancy": file, "steps": 1, "switch_reason": "cap"}
    return local.publish(work, NerfArtifact.model_validate({**common, **more}))


def stored_run(store: Path, run: str, *, shared: str = "", picture: bytes | None = None, age_s: float = 0.0) -> RunRecord:
    """A run with a NeRF and its scores. shared: words of a NeRF that other runs have too. age_s: since all of it was touched."""
    nerf, scores = published(store, shared or run), published(store, run, "scores")
    image = None
    if picture is not None:
        image = hashlib.sha256(picture).hexdigest()
        (store / "inputs").mkdir(exist_ok=True)
        (store / "inputs" / image).write_bytes(picture)
    entry = StageRecord(
        name="nerf", state="computed", seconds=1, fingerprint=nerf.fingerprint, metrics={}, scores=scores.fingerprint
    )
    record = RunRecord(
        run=run, prompt=f"a chair {run}", config=Config(), created="2026-01-01", image=image, stages={"nerf": entry}
    )
    write_record(store, record)
    Journal(store / "journals" / run, "run", run, {"prompt": record.prompt}).metrics(1, {"psnr": 20.0})
    if age_s:
        grow_old(store, age_s)
    return record


def grow_old(store: Path, age_s: float) -> None:
    """Let everything in a store have been written so long ago that is younger."""
    then = time.time() - age_s
    for path in [*store.rglob("*")]:
        if path.stat().st_mtime > then:
            os.utime(path, (then, then))
