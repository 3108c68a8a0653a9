"""The two ways to find what a pixel sees, measured side by side: our rasteriser and embree's rays."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from trimesh.creation import icosphere

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.renderers.embree import embree_scene, rasterize_frozen
from dreampolish.renderers.rasterizer import Fragments, rasterize
from dreampolish.scene.cameras import Cameras, turntable_cameras
from dreampolish.scene.cutout import OBJECT_RADIUS
from flows.runs.console import say
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.runtime.files import disk_errors_in_one_line

SUBDIVISIONS = (4, 5, 6)
"""Of the balls: 5,120, 20,480 and 81,920 triangles."""
SIZES = (128, 256, 512)
ROUNDS = 9
"""Of every way, in turn; the page shows medians."""


@dataclass(frozen=True)
class Rasterizers:
    """Milliseconds a picture, with barycentrics and depth. scene_ms: embree's tree over the mesh. differ: share of pixels on which the
    culled picture and embree's see different faces. threads: torch's. date: of the measurement."""

    triangles: int
    size: int
    ours_ms: float
    culled_ms: float
    embree_ms: float
    scene_ms: float
    differ: float
    threads: int
    date: str

    @property
    def still(self) -> float:
        """Our time in embree's on a mesh that stands still."""
        return self.culled_ms / self.embree_ms

    @property
    def moving(self) -> float:
        """Our time in embree's on a mesh that moves, so that its tree is built for every picture."""
        return self.culled_ms / (self.embree_ms + self.scene_ms)


def measure_rasterizers(subdivisions: Sequence[int] = SUBDIVISIONS, sizes: Sequence[int] = SIZES) -> list[Rasterizers]:
    """Every mesh at every size, the ways in turn, on the CPU with as many threads as torch has."""
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    found = []
    for level in subdivisions:
        ball = icosphere(subdivisions=level, radius=OBJECT_RADIUS)
        vertices = torch.tensor(ball.vertices, dtype=torch.float32)
        faces = torch.tensor(ball.faces, dtype=torch.int64)
        for size in sizes:
            one = _measured(vertices, faces, turntable_cameras(1, 15.0, REFERENCE_FOV_DEG, size), date)
            found.append(one)
            say(f"{len(faces):,} triangles, {size} pixels: ours {one.culled_ms:.1f} ms, embree {one.embree_ms:.1f} ms")
    return found


def _measured(vertices: Tensor, faces: Tensor, cameras: Cameras, date: str) -> Rasterizers:
    scene = embree_scene(vertices, faces)
    ways: dict[str, Callable[[], Fragments | object]] = {
        "ours": lambda: rasterize(vertices, faces, cameras, cull_backfaces=False),
        "culled": lambda: rasterize(vertices, faces, cameras, cull_backfaces=True),
        "embree": lambda: rasterize_frozen(vertices, faces, cameras, scene),
        # Its tree is built by the first ray.
        "scene": lambda: embree_scene(vertices, faces).intersects_first([[0.0, 0.0, 3.0]], [[0.0, 0.0, -1.0]]),
    }
    rounds = [{name: _milliseconds(way) for name, way in ways.items()} for _ in range(ROUNDS)]
    taken = pd.DataFrame(rounds).median()
    own = rasterize(vertices, faces, cameras, cull_backfaces=True).face_index
    other = rasterize_frozen(vertices, faces, cameras, scene).face_index
    return Rasterizers(
        triangles=len(faces),
        size=cameras.size,
        ours_ms=float(taken["ours"]),
        culled_ms=float(taken["culled"]),
        embree_ms=float(taken["embree"]),
        scene_ms=float(taken["scene"]),
        differ=float((own != other).float().mean()),
        threads=torch.get_num_threads(),
        date=date,
    )


def _milliseconds(way: Callable[[], object]) -> float:
    begun = time.perf_counter()
    way()
    return 1000 * (time.perf_counter() - begun)


def write_rasterizers(store: Path, found: Sequence[Rasterizers]) -> None:
    """Keep a measurement beside the store's runs, for the page; it replaces an earlier one."""
    with disk_errors_in_one_line(store):
        store.mkdir(parents=True, exist_ok=True)
        write_atomically(_kept(store), TypeAdapter(list[Rasterizers]).dump_json(list(found)))


def read_rasterizers(store: Path) -> list[Rasterizers]:
    """The last measurement; none before the first, or where another version left it."""
    try:
        return TypeAdapter(list[Rasterizers]).validate_json(_kept(store).read_bytes())
    except (OSError, ValidationError):
        return []


def _kept(store: Path) -> Path:
    return store / "benchmark-rasterizers.json"
