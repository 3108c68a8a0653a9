"""What a run shows of itself: the newest of everything, only while it goes on, and never a reason to fail."""

import json
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from stages.runtime.tracking.live import WATCHED_S, LiveStage, forget_live, live_folder, look


def test_the_newest_takes_the_place_of_the_one_before(store: Path) -> None:
    live, folder = LiveStage(store, "run1", "nerf"), live_folder(store, "run1")
    for level in (0.0, 1.0):
        live.picture("view", np.full((4, 6, 3), level))
    live.picture("a/b", np.zeros((2, 2, 3), np.uint8))
    live.mesh(b"glb")
    live.progress(10, 10, None)
    assert sorted(path.name for path in folder.iterdir()) == [
        "nerf-a~b.png",
        "nerf-mesh.glb",
        "nerf-progress.json",
        "nerf-view.png",
    ]
    with Image.open(folder / "nerf-view.png") as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((6, 4), (255, 255, 255))
    assert json.loads((folder / "nerf-progress.json").read_bytes()) == {"step": 10, "total": 10, "left_s": None}
    assert folder.stat().st_mode & 0o777 == 0o700
    forget_live(store, "run1")
    assert not folder.exists()


def test_progress_is_noted_once_a_second_and_at_the_end(store: Path) -> None:
    live, noted = LiveStage(store, "run1", "nerf"), live_folder(store, "run1") / "nerf-progress.json"
    for step in range(1, 101):
        live.progress(step, 101, 5.0)
    assert json.loads(noted.read_bytes())["step"] == 1
    live.progress(101, 101, 0.0)
    assert json.loads(noted.read_bytes())["step"] == 101


def test_a_run_is_watched_only_while_somebody_asks(store: Path) -> None:
    look(store, "run1")
    assert not live_folder(store, "run1").exists(), "looking begins nothing"
    live = LiveStage(store, "run1", "nerf")
    assert not live.watched()
    look(store, "run1")
    assert live.watched()
    old = time.time() - WATCHED_S - 1
    os.utime(live_folder(store, "run1") / "watched", (old, old))
    assert not live.watched()


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "live").write_text("a file where the folder belongs")
    live = LiveStage(tmp_path, "run1", "nerf")
    live.picture("view", np.zeros((2, 2, 3)))
    live.progress(1, 2, None)
    live.mesh(b"glb")
    assert not live.watched()
