"""The committed benchmark: small files, free licences, pictures that show the mesh."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreampolish.assets.writing.glb import read_glb
from dreampolish.data.split import read_split

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "benchmark" / "objects").glob("*/mesh.glb"))
HELD_OUT = set(read_split(ROOT / "configs" / "data" / "split.json")["held_out"])


def test_there_are_enough_objects_and_prompts() -> None:
    assert len(FOLDERS) >= 8
    assert len((ROOT / "benchmark" / "objects" / "prompts.txt").read_text().splitlines()) == 8


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_object_is_small_free_held_out_and_normalised(folder: Path) -> None:
    attribution = json.loads((folder / "attribution.json").read_text())
    assert attribution["licence"] == "CC0-1.0"
    assert attribution["creator"]
    assert attribution["prompt"].startswith(("a ", "an "))
    assert attribution["identifier"] in HELD_OUT
    assert (folder / "mesh.glb").stat().st_size <= 310_000
    mesh = read_glb(folder / "mesh.glb")
    assert float(mesh.vertices.norm(dim=1).max()) == pytest.approx(0.6, abs=0.02)
    assert len(mesh.faces) > 500


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_reference_is_a_cut_out_picture(folder: Path) -> None:
    with Image.open(folder / "reference.png") as picture:
        rgba = np.asarray(picture)
    assert rgba.shape == (512, 512, 4)
    assert 0.03 < (rgba[..., 3] > 127).mean() < 0.6
    assert (rgba[0, :, 3] == 0).all()
