"""A read scene, mended: what is kept of every part, and what new faces look like."""

from pathlib import Path

import numpy as np

from dreampolish.assets.reading.mended import flaws_of_scene, mended_scene
from dreampolish.assets.reading.read import read_scene
from dreampolish.assets.reading.scene import Scene
from dreampolish.assets.reading.source import open_mesh_file
from tests.support.gltf_files import box, textured_box


def open_box(folder: Path) -> Scene:
    """The box without one triangle of a side, and one face turned."""
    file = textured_box()
    faces = box()[3].copy()
    faces[4] = faces[4][::-1]
    file.primitive["indices"] = file.accessor(faces[:-1].reshape(-1))
    return read_scene(open_mesh_file(file.write(folder / "in.glb")))


def test_a_hole_is_filled_and_a_turned_face_turned_back(tmp_path: Path) -> None:
    scene = open_box(tmp_path)
    flaws = flaws_of_scene(scene)
    assert (flaws.holes, flaws.border_edges, flaws.turned) == (1, 3, 1)
    found = mended_scene(scene)
    assert flaws_of_scene(found).told() == ""
    part, before = found.parts[0], scene.parts[0]
    assert len(part.faces) == 12 and len(part.positions) == 24 + 3
    assert np.array_equal(part.positions[:24], before.positions)
    kept = np.sort(part.faces[:11], axis=1)
    assert np.array_equal(kept, np.sort(before.faces, axis=1))
    assert part.uv is not None and part.normals is not None
    assert np.array_equal(part.uv[:24], before.uv)
    corner = part.positions[part.faces]
    outward = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert ((outward * corner.mean(axis=1)).sum(axis=1) > 0).all()
    assert np.allclose(part.normals[24:], outward[11] / np.linalg.norm(outward[11]))


def test_a_whole_scene_stays_as_it_is(tmp_path: Path) -> None:
    scene = read_scene(open_mesh_file(textured_box().write(tmp_path / "in.glb")))
    found = mended_scene(scene)
    assert np.array_equal(found.parts[0].faces, scene.parts[0].faces)
    assert np.array_equal(found.parts[0].positions, scene.parts[0].positions)
