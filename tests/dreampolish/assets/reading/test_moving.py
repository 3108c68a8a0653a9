"""Moved vertices written back: in the frame of every piece, bit for bit where nothing moved, creases kept."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.read import joined, read_scene, world_from_file
from dreampolish.assets.reading.repainting.repaint import Colors, GivenMesh, PictureSettings, repainted
from dreampolish.assets.reading.source import MeshFiles, open_mesh_file
from dreampolish.assets.reading.surface import welded
from dreampolish.scene.cutout import OBJECT_RADIUS
from tests.support.gltf_files import GltfFile, textured_box

SETTINGS = PictureSettings(paint=False, only="", uv="auto", size=64, dilation=2, padding=2, jpeg_quality=None)
TURNED = {"translation": [10.0, -3.0, 2.0], "rotation": [0.5, 0.5, 0.5, 0.5], "scale": [2.0, 3.0, -0.5]}


def plain(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(points)


def given(path: Path, front_deg: float = 0.0) -> GivenMesh:
    files = open_mesh_file(path)
    scene = read_scene(files)
    up = scene.up or "z"
    mesh = joined(scene, up, files.name, front_deg)
    return GivenMesh(
        files=files,
        scene=scene,
        mesh=mesh.normalized(OBJECT_RADIUS),
        up=up,
        front_deg=front_deg,
        metres_per_unit=1.0,
        scale=mesh.radius / OBJECT_RADIUS,
    )


def written(found: GivenMesh, vertices: torch.Tensor, folder: Path) -> tuple[np.ndarray, GltfData]:
    """World positions of the vertices of the file that was written, and its document."""
    made = repainted(found, vertices, Colors(plain, plain, 0.0), SETTINGS, {})
    (folder / "out.glb").write_bytes(made.glb)
    again = open_mesh_file(folder / "out.glb")
    up = found.up if found.files.kind == "glb" else "y"
    return joined(read_scene(again), up, "out.glb", found.front_deg).vertices, GltfData(MeshFiles("out.glb", made.glb, None))


def swollen(found: GivenMesh) -> tuple[torch.Tensor, np.ndarray]:
    """Every place moved by a vector of its own, and where the file's vertices are to lie then, world frame, in its unit."""
    places, _ = welded(found.mesh)
    way = 0.02 * torch.randn(places.shape, generator=torch.Generator().manual_seed(0))
    number = torch.unique(found.mesh.vertices, dim=0, return_inverse=True)[1]
    axes = world_from_file(found.up, found.front_deg)
    before = np.concatenate([part.positions for part in found.scene.parts]) @ axes.T
    return places + way, before + (way[number].double() * found.scale).numpy()


def placed(file: GltfFile, nodes: Sequence[dict]) -> GltfFile:
    file.document["nodes"] = [{"mesh": 0, **node} for node in nodes]
    file.document["scenes"][0]["nodes"] = list(range(len(nodes)))
    return file


def test_a_shape_comes_back_through_a_turned_scaled_and_mirrored_place(tmp_path: Path) -> None:
    found = given(placed(textured_box(), [TURNED]).write(tmp_path / "in.glb"), front_deg=30.0)
    vertices, wanted = swollen(found)
    places, data = written(found, vertices, tmp_path)
    assert np.abs(places - wanted).max() < 1e-5 * np.abs(wanted).max()
    before = GltfData(found.files).document
    assert data.document["nodes"] == before["nodes"]
    for key in ("TEXCOORD_0",):
        assert (
            data.document["meshes"][0]["primitives"][0]["attributes"][key]
            == before["meshes"][0]["primitives"][0]["attributes"][key]
        )
    assert data.document["materials"] == before["materials"]


def test_what_does_not_move_keeps_its_accessors(tmp_path: Path) -> None:
    found = given(textured_box().write(tmp_path / "in.glb"))
    _, data = written(found, welded(found.mesh)[0], tmp_path)
    before = GltfData(found.files).document
    assert data.document["meshes"] == before["meshes"] and data.document["accessors"] == before["accessors"]


def test_copies_of_a_piece_share_the_mean_of_their_shifts(tmp_path: Path) -> None:
    found = given(placed(textured_box(), [{}, {"translation": [3.0, 0.0, 0.0]}]).write(tmp_path / "in.glb"))
    places, _ = welded(found.mesh)
    right = places[:, 1] > 0  # the file's +x is our +y
    vertices = places + torch.where(right[:, None], torch.tensor([0.0, 0.0, 0.1]), torch.zeros(3))
    moved, _ = written(found, vertices, tmp_path)
    before = np.concatenate([part.positions for part in found.scene.parts]) @ world_from_file("y", 0.0).T
    assert np.abs(moved - before - [0, 0, 0.05 * found.scale]).max() < 1e-5
    made = repainted(found, vertices, Colors(plain, plain, 0.0), SETTINGS, {})
    assert made.notes == ("1 copies of a piece share its shape: all get the mean of what polishing moved",)


def test_creases_stay_creases_and_normals_turn_with_their_faces(tmp_path: Path) -> None:
    found = given(placed(textured_box(), [TURNED]).write(tmp_path / "in.glb"))
    places, _ = welded(found.mesh)
    # A shear: the box becomes a slanted one, whose faces are still flat.
    shear = torch.eye(3)
    shear[0, 2] = 0.5
    _, data = written(found, places @ shear.T, tmp_path)
    scene = read_scene(MeshFiles("out.glb", (tmp_path / "out.glb").read_bytes(), None))
    part = scene.parts[0]
    corner = part.positions[part.faces]
    flat = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    assert part.normals is not None
    assert np.abs((part.normals[part.faces] * flat[:, None]).sum(-1) - 1).max() < 1e-5
    lengths = np.linalg.norm(data.numbers(data.document["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]), axis=1)
    assert np.abs(lengths - 1).max() < 1e-5


def test_another_format_is_written_as_a_glb_of_the_moved_shape(tmp_path: Path) -> None:
    (tmp_path / "in.off").write_text("OFF\n4 4 0\n0 0 0\n1 0 0\n0 2 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 1 2 3\n3 0 3 2\n")
    found = given(tmp_path / "in.off")
    vertices, wanted = swollen(found)
    places, _ = written(found, vertices, tmp_path)
    assert np.abs(places - wanted).max() < 1e-5
