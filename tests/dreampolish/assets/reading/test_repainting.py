"""A mesh with new colours comes out of its file's round trip with everything else bit for bit as it went in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.read import joined, read_mesh, read_scene
from dreampolish.assets.reading.repainting.layout import LARGEST_OVERLAP, chosen_parts, layouts
from dreampolish.assets.reading.repainting.repaint import Colors, GivenMesh, PictureSettings, Repainted, repainted
from dreampolish.assets.reading.scene import MeshError
from dreampolish.assets.reading.source import MeshFiles, archive_bytes, open_archive, open_mesh_file
from dreampolish.assets.reading.surface import colors_at, welded
from dreampolish.scene.cutout import OBJECT_RADIUS
from tests.support.gltf_files import GltfFile, box, textured_box

SETTINGS = PictureSettings(paint=True, only="", uv="auto", size=256, dilation=4, padding=4, jpeg_quality=None)


def painted(points: Tensor, normals: Tensor) -> Tensor:
    """Colours that change slowly over the scene."""
    return 0.5 + 0.5 * points


def spread_box() -> GltfFile:
    """The box with each of its faces in a cell of its own of the picture."""
    file = textured_box()
    uvs = box()[2].reshape(6, 4, 2)
    cells = np.stack([(0.1 + 0.8 * uvs[k] + (k % 3, k // 3)) / (3, 2) for k in range(6)]).reshape(24, 2).astype(np.float32)
    file.primitive["attributes"]["TEXCOORD_0"] = file.accessor(cells)
    return file


def given(path: Path) -> GivenMesh:
    files = open_mesh_file(path)
    scene = read_scene(files)
    up = scene.up or "z"
    mesh = joined(scene, up, files.name)
    return GivenMesh(
        files=files,
        scene=scene,
        mesh=mesh.normalized(OBJECT_RADIUS),
        up=up,
        front_deg=0.0,
        metres_per_unit=scene.metres_per_unit or 1.0,
        scale=mesh.radius / OBJECT_RADIUS,
    )


def repaint(path: Path, **changed: Any) -> tuple[GivenMesh, Repainted]:
    found = given(path)
    settings = PictureSettings(**{**vars(SETTINGS), **changed})
    return found, repainted(found, welded(found.mesh)[0], Colors(painted, painted, 0.0), settings, {"prompt": "a box"})


def as_data(content: bytes) -> GltfData:
    return GltfData(MeshFiles("out.glb", content, None))


def worst_error(before: GivenMesh, content: bytes, folder: Path) -> float:
    """The largest difference of the written file's colours from the painted ones, over places on every face."""
    (folder / "out.glb").write_bytes(content)
    mesh = read_mesh(folder / "out.glb").normalized(OBJECT_RADIUS)
    faces = torch.arange(len(mesh.faces)).repeat_interleave(3)
    shares = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]).repeat(len(mesh.faces), 1)
    points = (shares[..., None] * mesh.vertices[mesh.faces[faces]]).sum(1)
    assert torch.equal(before.mesh.vertices[before.mesh.faces], mesh.vertices[mesh.faces])
    return float((colors_at(mesh, faces, shares) - painted(points, points)).abs().max())


def same_bits(before: GltfData, after: GltfData, accessors: int) -> bool:
    return all(np.array_equal(before.raw(k).view(np.uint8), after.raw(k).view(np.uint8)) for k in range(accessors))


def with_rig_and_second_material(file: GltfFile) -> GltfFile:
    """Names, a second material on half of the faces, a skin, an animation, a morph target, extras and a custom attribute."""
    corners = box()[3].reshape(-1)
    attributes = file.primitive["attributes"]
    attributes["JOINTS_0"] = file.accessor(np.zeros((24, 4), np.uint8))
    attributes["WEIGHTS_0"] = file.accessor(np.tile(np.array([[1, 0, 0, 0]], np.float32), (24, 1)))
    attributes["_TEMPERATURE"] = file.accessor(np.arange(24, dtype=np.float32))
    file.primitive["targets"] = [{"POSITION": file.accessor(box()[0] * np.float32(0.1))}]
    file.primitive["indices"] = file.accessor(corners[:18].copy())
    second = {**file.primitive, "indices": file.accessor(corners[18:].copy()), "material": 1, "extras": {"part": "back"}}
    file.document["meshes"][0]["primitives"].append(second)
    file.document["materials"].append({"name": "brass", "pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.6, 0.2, 1]}})
    times, turn = np.array([0, 1], np.float32), np.array([[0, 0, 0, 1], [0, 1, 0, 0]], np.float32)
    file.document["nodes"] = [{"mesh": 0, "skin": 0, "name": "Körper"}, {"name": "bone", "translation": [0.1, 0.2, 0.3]}]
    file.document["scenes"] = [{"nodes": [0, 1], "name": "Scene"}]
    file.document["skins"] = [{"joints": [1], "name": "rig"}]
    sampler = {"input": file.accessor(times), "output": file.accessor(turn)}
    channel = {"sampler": 0, "target": {"node": 1, "path": "rotation"}}
    file.document["animations"] = [{"name": "wave", "samplers": [sampler], "channels": [channel]}]
    return file


def test_kept_coordinates_leave_every_byte_of_geometry_names_rig_and_other_materials(tmp_path: Path) -> None:
    path = with_rig_and_second_material(spread_box()).write(tmp_path / "in.glb")
    found, made = repaint(path, only="paint")
    before, after = GltfData(found.files), as_data(made.glb)
    assert before.binary is not None and after.binary is not None
    assert after.binary.startswith(before.binary)
    for kind in ("nodes", "scenes", "skins", "animations", "accessors", "meshes"):
        assert after.entries(kind) == before.entries(kind), kind
    assert after.entries("materials")[1] == before.entries("materials")[1]
    assert same_bits(before, after, len(before.entries("accessors")))
    assert after.document["asset"]["extras"]["dreampolish"] == {"prompt": "a box"}
    assert after.entries("materials")[0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 1}
    assert list(made.pictures) == ["paint"]


def test_the_new_picture_shows_the_painted_colours(tmp_path: Path) -> None:
    found, made = repaint(spread_box().write(tmp_path / "in.glb"))
    assert worst_error(found, made.glb, tmp_path) < 0.02
    assert made.notes == ()


def test_overlapping_coordinates_are_told_and_made_anew_behind_the_given_vertices(tmp_path: Path) -> None:
    file = with_rig_and_second_material(textured_box())
    found, made = repaint(file.write(tmp_path / "in.glb"))
    before, after = GltfData(found.files), as_data(made.glb)
    assert any("lie over others; it is unwrapped anew" in note for note in made.notes)
    assert same_bits(before, after, len(before.entries("accessors")))
    for number in range(2):
        old, new = (data.entry("meshes", 0)["primitives"][number] for data in (before, after))
        for key in ("POSITION", "NORMAL", "JOINTS_0", "WEIGHTS_0", "_TEMPERATURE"):
            given_rows, rows = before.raw(old["attributes"][key]), after.raw(new["attributes"][key])
            np.testing.assert_array_equal(rows[: len(given_rows)], given_rows)
            corners = (before.indices(old["indices"]), after.indices(new["indices"]))
            np.testing.assert_array_equal(rows[corners[1]], given_rows[corners[0]])
    assert worst_error(found, made.glb, tmp_path) < 0.03


def test_new_coordinates_lie_in_the_picture_and_apart(tmp_path: Path) -> None:
    found = given(textured_box().write(tmp_path / "in.glb"))
    layout = layouts(found.scene.parts, found.mesh, [0], "new", 256, 4)[0]
    assert layout.is_new
    assert float(layout.uv.min()) >= 0 and float(layout.uv.max()) <= 1
    span = layout.uv.double()
    first, second = span[:, 1] - span[:, 0], span[:, 2] - span[:, 0]
    area = float(((first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs() / 2).sum())
    from dreampolish.assets.bake import faces_of_texels

    covered = float((faces_of_texels(layout.surface(found.mesh), 512) >= 0).double().mean())
    assert 1 - covered / area < LARGEST_OVERLAP


def test_a_tile_of_a_repeated_picture_is_kept_and_a_face_over_several_is_not(tmp_path: Path) -> None:
    for factor, is_new in ((1.0, False), (2.5, True)):
        file = spread_box()
        uvs = GltfData(MeshFiles("a.glb", file.glb(), None)).raw(file.primitive["attributes"]["TEXCOORD_0"])
        file.primitive["attributes"]["TEXCOORD_0"] = file.accessor((uvs * factor + np.float32(3)).astype(np.float32))
        found = given(file.write(tmp_path / "in.glb"))
        layout = layouts(found.scene.parts, found.mesh, [0], "auto", 256, 4)[0]
        assert layout.is_new == is_new
        if is_new:
            assert "outside [0, 1]" in layout.notes[0] or "lie over others" in layout.notes[0]


def test_coordinates_without_area_are_never_kept(tmp_path: Path) -> None:
    file = spread_box()
    file.primitive["attributes"]["TEXCOORD_0"] = file.accessor(np.full((24, 2), 0.5, np.float32))
    path = file.write(tmp_path / "in.glb")
    assert layouts(given(path).scene.parts, given(path).mesh, [0], "auto", 256, 4)[0].is_new
    file.primitive["attributes"].pop("TEXCOORD_0")
    with pytest.raises(MeshError, match="no texture coordinates; --uv new"):
        repaint(file.write(tmp_path / "none.glb"), uv="keep")


def test_vertex_colours_do_not_count_twice(tmp_path: Path) -> None:
    file = spread_box()
    file.primitive["attributes"]["COLOR_0"] = file.accessor(np.tile(np.array([[0.3, 0.2, 0.9, 1]], np.float32), (24, 1)))
    found, made = repaint(file.write(tmp_path / "in.glb"))
    assert worst_error(found, made.glb, tmp_path) < 0.02
    attributes = as_data(made.glb).entry("meshes", 0)["primitives"][0]["attributes"]
    assert "COLOR_0" not in attributes and "_COLOR_0" in attributes


def test_a_mirrored_piece_keeps_the_corners_that_its_file_has(tmp_path: Path) -> None:
    file = textured_box()
    file.node["scale"] = [-1, 1, 1]
    found, made = repaint(file.write(tmp_path / "in.glb"), uv="new")
    before, after = GltfData(found.files), as_data(made.glb)
    old, new = (data.entry("meshes", 0)["primitives"][0] for data in (before, after))
    positions = [data.raw(p["attributes"]["POSITION"])[data.indices(p["indices"])] for data, p in ((before, old), (after, new))]
    np.testing.assert_array_equal(*positions)
    assert worst_error(found, made.glb, tmp_path) < 0.03


def test_two_materials_of_one_name_are_told_apart_by_number(tmp_path: Path) -> None:
    file = with_rig_and_second_material(spread_box())
    file.document["materials"][1]["name"] = "paint"
    parts = given(file.write(tmp_path / "in.glb")).scene.parts
    with pytest.raises(MeshError, match=r"2 materials are called 'paint'.*#1"):
        chosen_parts(parts, "paint")
    assert chosen_parts(parts, "#1") == [1]
    with pytest.raises(MeshError, match="no material 'gold'; there are paint"):
        chosen_parts(parts, "gold")


def test_an_own_picture_comes_back_where_no_colour_changes_and_all_detail_is_kept(tmp_path: Path) -> None:
    found = given(spread_box().write(tmp_path / "in.glb"))
    made = repainted(found, welded(found.mesh)[0], Colors(painted, painted, 1.0), SETTINGS, {})
    (tmp_path / "out.glb").write_bytes(made.glb)
    mesh = read_mesh(tmp_path / "out.glb").mesh
    faces, shares = torch.arange(12), torch.tensor([[0.8, 0.1, 0.1]]).repeat(12, 1)
    # Nothing is lost but what a picture of another size filters.
    assert float((colors_at(mesh, faces, shares) - colors_at(found.mesh, faces, shares)).abs().max()) < 0.01


OBJ = """# a box of two materials
mtllib box.mtl
o lid
v -1 0 0.123456789
v 1 0 0
v 1 2 0
v -1 2 0
v -1 0 1
vt 0.1 0.1
vt 0.9 0.1
vt 0.9 0.9
vt 0.1 0.9
usemtl wood
f 1/1 2/2 3/3 4/4
usemtl steel
f 1/1 2/2 5/3
"""
MTL = "newmtl wood\nKd 0.5 0.2 0.1\nNs 10\n\nnewmtl steel\nKd 0.25 0.25 0.25\n"


def test_an_obj_comes_out_as_it_was_with_a_new_picture_in_its_library(tmp_path: Path) -> None:
    (tmp_path / "box.obj").write_text(OBJ)
    (tmp_path / "box.mtl").write_text(MTL)
    _, made = repaint(tmp_path / "box.obj", only="wood")
    assert made.originals["box.obj"] == OBJ.encode()
    library = made.originals["box.mtl"].decode()
    assert library == "newmtl wood\nKd 1 1 1\nmap_Kd wood-1.png\nNs 10\n\nnewmtl steel\nKd 0.25 0.25 0.25\n"
    assert made.originals["wood-1.png"].startswith(b"\x89PNG")
    data = as_data(made.glb)
    assert [material["name"] for material in data.entries("materials")] == ["wood", "steel"]
    quad = data.raw(data.entry("meshes", 0)["primitives"][0]["attributes"]["POSITION"])
    wanted = np.array([[-1, 0, 0.123456789], [1, 0, 0], [1, 2, 0], [-1, 2, 0]], np.float32)
    np.testing.assert_array_equal(np.unique(quad, axis=0), np.unique(wanted, axis=0))


@pytest.mark.parametrize("kind", ["ply", "stl", "off"])
def test_vertices_and_faces_of_other_formats_keep_their_order_in_the_glb(tmp_path: Path, kind: str) -> None:
    mesh = trimesh.creation.box((1, 2, 3))
    if kind == "ply":
        mesh.visual.vertex_colors = np.tile([[200, 30, 30, 255]], (len(mesh.vertices), 1))
    mesh.export(tmp_path / f"box.{kind}")
    found, made = repaint(tmp_path / f"box.{kind}")
    part, data = found.scene.parts[0], as_data(made.glb)
    primitive = data.entry("meshes", 0)["primitives"][0]
    rows = data.raw(primitive["attributes"]["POSITION"])
    np.testing.assert_array_equal(rows[: len(part.positions)], part.positions.astype(np.float32))
    np.testing.assert_array_equal(
        rows[data.indices(primitive["indices"]).reshape(-1, 3)], part.positions.astype(np.float32)[part.faces]
    )
    assert worst_error(found, made.glb, tmp_path) < 0.03


def test_an_archive_holds_what_was_read_and_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "box.obj").write_text(OBJ)
    (tmp_path / "box.mtl").write_text(MTL)
    (tmp_path / "unrelated.txt").write_text("not named")
    packed = []
    for _ in range(2):
        files = open_mesh_file(tmp_path / "box.obj")
        read_scene(files)
        packed.append(archive_bytes(files))
    assert packed[0] == packed[1]
    (tmp_path / "mesh.zip").write_bytes(packed[0])
    back = open_archive(tmp_path / "mesh.zip")
    assert (back.name, back.content, set(back.beside)) == ("box.obj", OBJ.encode(), {"box.mtl"})
    assert len(read_scene(back).parts) == 2
