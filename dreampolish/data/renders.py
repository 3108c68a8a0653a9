"""Renders of the domain as rounds of uncompressed arrays: `python -m dreampolish.data.renders LIBRARIES OUTPUT`.

A round holds the same number of views of every object and is complete in itself: `round_K/buffers.npy` (N, 8, S, S) uint8 with
the channels of CHANNELS (normals as int8 bits), `round_K/depth.npy` (N, S, S) float16 relative depth (raycasting.Buffers), and
`round_K/index.json`, written last: {"objects": [identifier per view], "azimuth_deg", "elevation_deg", "fov_deg", "stretch"}. Round 0
starts with the front view of every object. `round_front/` has only views from straight in front, where the pipeline's reference is
taken to stand. `evaluation/` has fixed views. `objects.json` describes the objects.
`round_stretched_K/` shows every object stretched along its axes, differently in each of these rounds; its index also has "shape", the
round's number from 1, and its "stretch" is per view the range of the logarithms of the three factors (0 in other rounds). Only the
training split reads these rounds.
Views are seeded by object and round, so any round can be made alone, again and identically.
"""

import argparse
import json
import logging
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreampolish.data.domain import in_domain
from dreampolish.data.library import CatalogEntry, entry_from_fields, load_model, read_catalog, stretched
from dreampolish.data.raycasting import RayCaster
from dreampolish.scene.cameras import Cameras, orbit_cameras

CHANNELS = ("red", "green", "blue", "normal_x", "normal_y", "normal_z", "coverage", "paint")
EVALUATION, FRONT, STRETCHED = "evaluation", "round_front", "round_stretched_"
FRONT_VIEWS, STRETCHED_VIEWS = 4, 14
"""Views of an object in a round of front views, and in a round of stretched shapes. [choice]"""
HIGH_SHARE, NARROW_SHARE = 0.1, 0.6
"""Shares of training views from above 45 degrees, and of those at a field of view of 20 degrees. [choice]"""
LARGEST_STRETCH = 0.3
"""Bound of the logarithm of the factor along each axis: some five hundred objects are few shapes. [choice]"""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RenderPlan:
    """size: pixels of a side; supersampling: rays per pixel side; views_per_round: views of each object in round 0, 1, ...;
    stretched_rounds: how many rounds of stretched objects."""

    size: int
    supersampling: int
    views_per_round: tuple[int, ...]
    stretched_rounds: int


def _uniform(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def training_cameras(n_views: int, with_front: bool, size: int, generator: torch.Generator) -> Cameras:
    """Random views: azimuth stratified, elevation -10..45 degrees (one in ten up to 70), FOV 20 for 60 % and 20..60 else.

    with_front: the first view is the front at azimuth 0, elevation 0..20, FOV 20.
    """
    azimuth = (torch.arange(n_views) + torch.rand(n_views, generator=generator)) * (360 / n_views)
    high = torch.rand(n_views, generator=generator) < HIGH_SHARE
    elevation = torch.where(high, _uniform(45.0, 70.0, n_views, generator), _uniform(-10.0, 45.0, n_views, generator))
    narrow = torch.rand(n_views, generator=generator) < NARROW_SHARE
    fov = torch.where(narrow, torch.tensor(20.0), _uniform(20.0, 60.0, n_views, generator))
    if with_front:
        azimuth[0], fov[0] = 0.0, 20.0
        elevation[0] = _uniform(0.0, 20.0, 1, generator)[0]
    return orbit_cameras(azimuth, elevation, fov, size)


def front_cameras(size: int, generator: torch.Generator) -> Cameras:
    """FRONT_VIEWS views from straight in front: azimuth -8..8 degrees, elevation 5..15, FOV 20."""
    azimuth = _uniform(-8.0, 8.0, FRONT_VIEWS, generator)
    return orbit_cameras(azimuth, _uniform(5.0, 15.0, FRONT_VIEWS, generator), torch.full((FRONT_VIEWS,), 20.0), size)


def stretched_cameras(size: int, generator: torch.Generator) -> Cameras:
    """STRETCHED_VIEWS views: two from straight in front, two at azimuth -30..30 degrees, seven around at FOV 20, three at FOV 20..60."""
    around = (torch.arange(7) + torch.rand(7, generator=generator)) * (360 / 7)
    high = torch.rand(7, generator=generator) < HIGH_SHARE
    azimuth = [
        _uniform(-8.0, 8.0, 2, generator),
        _uniform(-30.0, 30.0, 2, generator),
        around,
        _uniform(0.0, 360.0, 3, generator),
    ]
    elevation = [
        _uniform(5.0, 15.0, 2, generator),
        _uniform(-5.0, 25.0, 2, generator),
        torch.where(high, _uniform(45.0, 70.0, 7, generator), _uniform(-10.0, 45.0, 7, generator)),
        _uniform(-10.0, 60.0, 3, generator),
    ]
    fov = torch.cat([torch.full((11,), 20.0), _uniform(20.0, 60.0, 3, generator)])
    return orbit_cameras(torch.cat(azimuth), torch.cat(elevation), fov, size)


def stretch_factors(name: str, identifier: str) -> tuple[float, float, float]:
    """An object's factors along world x, y, z in one round: 1 but in the stretched rounds."""
    if not name.startswith(STRETCHED):
        return 1.0, 1.0, 1.0
    generator = torch.Generator().manual_seed(zlib.crc32(f"{identifier}/{name}/factors".encode()))
    x, y, z = _uniform(-LARGEST_STRETCH, LARGEST_STRETCH, 3, generator).exp().tolist()
    return x, y, z


def evaluation_cameras(size: int) -> Cameras:
    """Twelve fixed views: eight around at elevation 15 (the first the front), four higher up and at wider FOV."""
    azimuth = torch.tensor([0.0, 45, 90, 135, 180, 225, 270, 315, 30, 150, 210, 330])
    elevation = torch.tensor([15.0] * 8 + [0, 30, 40, 30])
    fov = torch.tensor([20.0] * 8 + [40, 40, 60, 30])
    return orbit_cameras(azimuth, elevation, fov, size)


def _round_cameras(name: str, identifier: str, plan: RenderPlan) -> Cameras:
    """The cameras of one object in one round, from a seed of both names."""
    if name == EVALUATION:
        return evaluation_cameras(plan.size)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{identifier}/{name}".encode()))
    if name == FRONT:
        return front_cameras(plan.size, generator)
    if name.startswith(STRETCHED):
        return stretched_cameras(plan.size, generator)
    number = int(name.removeprefix("round_"))
    return training_cameras(plan.views_per_round[number], number == 0, plan.size, generator)


def render_round(name: str, entries: list[CatalogEntry], libraries: Path, output: Path, plan: RenderPlan) -> None:
    """Write one round of all `entries`, view by view interleaved over the objects (all fronts first)."""
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    n_views = len(_round_cameras(name, entries[0].identifier, plan))
    total = n_views * len(entries)
    shape = (total, len(CHANNELS), plan.size, plan.size)
    buffers = np.lib.format.open_memmap(folder / "buffers.npy", "w+", np.uint8, shape)
    depth = np.lib.format.open_memmap(folder / "depth.npy", "w+", np.float16, (total, plan.size, plan.size))
    keys = ("objects", "azimuth_deg", "elevation_deg", "fov_deg", "stretch")
    index: dict[str, Any] = {key: [0.0] * total for key in keys}
    if name.startswith(STRETCHED):
        index["shape"] = int(name.removeprefix(STRETCHED)) + 1
    probe = evaluation_cameras(48)[:8]
    for place, entry in enumerate(entries):
        cameras = _round_cameras(name, entry.identifier, plan)
        factors = stretch_factors(name, entry.identifier)
        mesh = load_model(entry, libraries, 1.34 / (plan.size * plan.supersampling))
        caster = RayCaster(mesh)
        main_paint = caster.main_paint(probe)  # of the object itself: a stretched one is recoloured like it
        caster = RayCaster(stretched(mesh, factors)) if name.startswith(STRETCHED) else caster
        for view in range(n_views):
            row, camera = view * len(entries) + place, cameras[view : view + 1]
            found = caster.render(camera, main_paint, plan.supersampling)
            buffers[row] = np.concatenate([found.albedo, found.normals.view(np.uint8), found.coverage[None], found.paint[None]])
            depth[row] = found.relative_depth
            index["objects"][row] = entry.identifier
            index["stretch"][row] = round(float(np.ptp(np.log(factors))), 4)
            index["azimuth_deg"][row] = round(float(camera.azimuth_deg[0]), 4)
            index["elevation_deg"][row] = round(float(camera.elevation_deg[0]), 4)
            index["fov_deg"][row] = round(float(camera.fov_deg[0]), 4)
    buffers.flush()
    depth.flush()
    (folder / "index.json").write_text(json.dumps(index))
    log.info("%s: %d views of %d objects", name, total, len(entries))


def loadable_entries(libraries: Path) -> list[CatalogEntry]:
    """The domain's entries whose model can be read and seen; what cannot is logged."""
    kept = []
    for entry in filter(in_domain, read_catalog(libraries)):
        try:
            load_model(entry, libraries, 0.05)
        except (KeyError, ValueError, IndexError) as problem:
            log.warning("%s left out: %s", entry.identifier, problem)
        else:
            kept.append(entry)
    return kept


def render_all(libraries: Path, output: Path, plan: RenderPlan) -> None:
    """Render every round that is not there yet, the evaluation and front views after round 0. The objects are fixed by the first call."""
    output.mkdir(parents=True, exist_ok=True)
    described = output / "objects.json"
    if described.exists():
        entries = [entry_from_fields(fields) for fields in json.loads(described.read_text())]
    else:
        entries = loadable_entries(libraries)
        described.write_text(json.dumps([asdict(entry) for entry in entries], indent=1))
    names = [f"round_{number}" for number in range(len(plan.views_per_round))]
    stretched_names = [f"{STRETCHED}{number}" for number in range(plan.stretched_rounds)]
    for name in [names[0], EVALUATION, FRONT, *names[1:], *stretched_names]:
        if not (output / name / "index.json").exists():
            render_round(name=name, entries=entries, libraries=libraries, output=output, plan=plan)


def main() -> None:
    """The command: positional folders, the plan by options."""
    parser = argparse.ArgumentParser(description="Render the furniture libraries for training.")
    parser.add_argument("libraries", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--supersampling", type=int, default=2)
    parser.add_argument("--views-per-round", type=int, nargs="+", default=[8, 10, 10, 10])
    parser.add_argument("--stretched-rounds", type=int, default=4)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    plan = RenderPlan(options.size, options.supersampling, tuple(options.views_per_round), options.stretched_rounds)
    render_all(options.libraries, options.output, plan)


if __name__ == "__main__":
    main()
