"""What a run shows of itself while it goes on, for `dreampolish watch`: `<store>/live/<run>/`, which the end of the run removes.

Each stage leaves its newest pictures there and how far it is. Views from all around and the mesh so far cost time, so they are made only
while somebody looks: the page touches the file `watched`. Nothing here is a result: nothing is synced, and no trouble ends a stage.
"""

import io
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

WATCHED = "watched"
WATCHED_S = 20.0
"""So long after a page last asked, somebody still looks."""
TELL_S = 1.0
"""Between two notes of how far a stage is."""


def live_folder(store: Path, run: str) -> Path:
    """Where a run that goes on shows itself."""
    return store / "live" / run


def look(store: Path, run: str) -> None:
    """Let the run know that somebody looks; nothing where it shows nothing."""
    with suppress(OSError):
        folder = live_folder(store, run)
        if folder.is_dir():
            (folder / WATCHED).touch()


def forget_live(store: Path, run: str) -> None:
    """Remove what a run showed of itself."""
    shutil.rmtree(live_folder(store, run), ignore_errors=True)


class LiveStage:
    """One stage's part of what its run shows."""

    def __init__(self, store: Path, run: str, stage: str) -> None:
        self._folder, self._stage = live_folder(store, run), stage
        self._next_note = 0.0
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def watched(self) -> bool:
        """Whether somebody looks now."""
        try:
            return time.time() - (self._folder / WATCHED).stat().st_mtime < WATCHED_S
        except OSError:
            return False

    def progress(self, step: int, total: int, left_s: float | None) -> None:
        """How far the stage is, once a second. left_s: seconds, where they can be told."""
        if time.monotonic() >= self._next_note or step == total:
            self._next_note = time.monotonic() + TELL_S
            self._write("progress.json", json.dumps({"step": step, "total": total, "left_s": left_s}).encode())

    def picture(self, name: str, picture: np.ndarray) -> None:
        """The newest picture of a name: (H, W, 3), uint8 or floats in [0, 1]."""
        if picture.dtype != np.uint8:
            picture = (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG", compress_level=1)
        self._write(f"{name.replace('/', '~')}.png", stream.getvalue())

    def mesh(self, glb: bytes) -> None:
        """The mesh so far."""
        self._write("mesh.glb", glb)

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all, in place of the one before."""
        path = self._folder / f"{self._stage}-{name}"
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with suppress(OSError):
            partial.write_bytes(content)
            partial.replace(path)
