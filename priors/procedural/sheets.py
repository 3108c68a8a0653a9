"""Contact sheets of procedural objects: python priors/procedural/sheets.py OBJECTS OUT [--raw] [--only GENERATOR ...].

A row a generator: the first object from azimuth 0 (the front, once generators.yaml names it), 45, 90, 180 and 270 degrees, then others
from 0 and 45 in turn. --raw ignores generators.yaml's fronts: for finding them.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from engine import HERE, objects_in, read_generators
from PIL import Image, ImageDraw

from dreampolish.data.procedural import load_object, painted_mesh
from dreampolish.data.raycasting import RayCaster
from dreampolish.scene.cameras import orbit_cameras

SIZE, ROWS, AROUND, OTHERS = 112, 9, (0.0, 45.0, 90.0, 180.0, 270.0), 5


def views(path: Path, front_deg: float | None, azimuths: tuple[float, ...]) -> list[np.ndarray]:
    """Pictures (SIZE, SIZE, 3) uint8 of one object under a plain light from the camera, elevation 15 degrees."""
    caster = RayCaster(painted_mesh(load_object(path), front_deg))
    angles = torch.tensor(azimuths)
    cameras = orbit_cameras(angles, torch.full_like(angles, 15.0), torch.full_like(angles, 20.0), SIZE)
    pictures = []
    for index in range(len(azimuths)):
        found = caster.render(cameras[index : index + 1], 0, 2)
        light = 0.55 + 0.45 * (found.normals.astype(np.float32)[2] / 127).clip(0, 1)
        cover = found.coverage / 255.0
        color = found.albedo * light * cover + 255 * (1 - cover)
        pictures.append(color.transpose(1, 2, 0).astype(np.uint8))
    return pictures


def row(objects: Path, name: str, seeds: list[int], front_deg: float | None) -> np.ndarray:
    """One generator's strip (SIZE, columns * SIZE, 3)."""
    chosen = [seeds[round(place)] for place in np.linspace(0, len(seeds) - 1, min(len(seeds), OTHERS + 1))]
    pictures = views(objects / f"{name}_{chosen[0]:04d}.npz", front_deg, AROUND)
    for place, seed in enumerate(chosen[1:]):
        pictures += views(objects / f"{name}_{seed:04d}.npz", front_deg, (45.0 * (place % 2),))
    blank = np.full_like(pictures[0], 255)
    strip = np.concatenate([*pictures, *[blank] * (len(AROUND) + OTHERS - len(pictures))], axis=1)
    picture = Image.fromarray(strip)
    ImageDraw.Draw(picture).text((3, 1), f"{name} {chosen[0]} ({len(seeds)}) front {front_deg}", fill=(200, 0, 0))
    return np.asarray(picture)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Contact sheets of procedural objects.")
    parser.add_argument("objects", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="GENERATOR")
    parser.add_argument("--raw", action="store_true")
    options = parser.parse_args()
    generators = read_generators(HERE / "generators.yaml")
    seeds = defaultdict(list)
    for name, seed in sorted(objects_in(options.objects)):
        if not options.only or name in options.only:
            seeds[name].append(seed)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    fronts = {name: None if options.raw or name not in generators else generators[name].front_deg for name in seeds}
    rows = [row(options.objects, name, found, fronts[name]) for name, found in seeds.items()]
    for page in range(0, len(rows), ROWS):
        Image.fromarray(np.concatenate(rows[page : page + ROWS])).save(options.out / f"sheet_{page // ROWS}.png")


if __name__ == "__main__":
    main()
