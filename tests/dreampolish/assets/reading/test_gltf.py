"""glTF files of every kind are read as they are, each against the value that it must give."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreampolish.assets.reading.read import ReadMesh, read_mesh
from dreampolish.assets.reading.scene import MeshError
from dreampolish.assets.textured_mesh import linear_from_srgb, srgb_from_linear, texels_bilinear, wrapped
from tests.support.gltf_files import COLORS, GltfFile, box, png, quarters, textured_box

WORLD_SIZE = (0.6, 1.0, 1.6)
"""The box in the world frame: x is glTF's z, y its x, z its y."""


def read(folder: Path, file: GltfFile) -> ReadMesh:
    return read_mesh(file.write(folder / "box.glb"))


def size_of(found: ReadMesh) -> np.ndarray:
    return np.ptp(found.vertices[found.mesh.faces.unique().numpy()], axis=0)


def color_at(found: ReadMesh, face: int, barycentric: tuple[float, float, float]) -> list[int]:
    """sRGB bytes at a place of a face, as the renderer mixes them."""
    mesh, shares = found.mesh, torch.tensor([barycentric])
    uv = shares @ mesh.uv[mesh.faces[face]]
    number = int(mesh.face_texture[face])
    uv = wrapped(uv, mesh.wraps[number], mesh.textures[number].shape)
    color = texels_bilinear(mesh.textures[number], uv)
    if mesh.vertex_colors is not None:
        color = srgb_from_linear(linear_from_srgb(color) * (shares @ mesh.vertex_colors[mesh.faces[face]]))
    return (color[0] * 255).round().int().tolist()


NEAR_CORNER = (0.9, 0.05, 0.05)
"""In the texture's lower left quarter for the first face of the box."""


def test_a_plain_box_is_read_with_its_size_place_and_colours(tmp_path: Path) -> None:
    found = read(tmp_path, textured_box())
    np.testing.assert_allclose(size_of(found), WORLD_SIZE, atol=1e-7)
    np.testing.assert_allclose(found.center, 0, atol=1e-7)
    assert found.radius == pytest.approx(math.sqrt(0.6**2 + 1 + 1.6**2) / 2, rel=1e-6)
    assert color_at(found, 0, NEAR_CORNER) == list(COLORS[2])
    assert found.notes == ()


def test_quantised_and_normalised_accessors_become_the_numbers_they_stand_for(tmp_path: Path) -> None:
    file = textured_box()
    positions, normals, uvs, _ = box()
    file.require("KHR_mesh_quantization")
    attributes = file.primitive["attributes"]
    attributes["POSITION"] = file.accessor((positions / 0.8 * 32767).round().astype(np.int16), normalized=True)
    attributes["NORMAL"] = file.accessor((normals * 127).astype(np.int8), normalized=True)
    attributes["TEXCOORD_0"] = file.accessor((uvs * 65535).astype(np.uint16), normalized=True)
    file.node["scale"] = [0.8, 0.8, 0.8]
    found = read(tmp_path, file)
    np.testing.assert_allclose(size_of(found), WORLD_SIZE, atol=1e-4)
    assert color_at(found, 0, NEAR_CORNER) == list(COLORS[2])
    np.testing.assert_allclose(found.mesh.normals.norm(dim=-1), 1, atol=1e-6)


def test_a_least_signed_integer_normalises_to_minus_one(tmp_path: Path) -> None:
    file = textured_box()
    positions = box()[0] / np.abs(box()[0]).max(0)
    bytes_ = np.where(positions < 0, -128, 127).astype(np.int8)
    file.primitive["attributes"]["POSITION"] = file.accessor(bytes_, normalized=True)
    np.testing.assert_allclose(size_of(read(tmp_path, file)), 2)


def test_vertex_colours_multiply_factor_and_texture_in_linear_light(tmp_path: Path) -> None:
    file = textured_box()
    colors = np.tile(np.array([[0.5, 0.25, 1.0, 1.0]], np.float32), (24, 1))
    file.primitive["attributes"]["COLOR_0"] = file.accessor(colors)
    file.material["pbrMetallicRoughness"]["baseColorFactor"] = [1, 0.5, 1, 1]
    texel = linear_from_srgb(torch.tensor(COLORS[2]) / 255) * torch.tensor([0.5, 0.125, 1.0])
    wanted = (srgb_from_linear(texel) * 255).round().int().tolist()
    assert color_at(read(tmp_path, file), 0, NEAR_CORNER) == wanted


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_vertex_colours_without_a_texture(tmp_path: Path, dtype: type, scale: int) -> None:
    file = textured_box()
    file.document["materials"] = [{"pbrMetallicRoughness": {}}]
    values = np.tile(np.array([[1.0, 0.2, 0.0]]) * scale, (24, 1)).round().astype(dtype)
    file.primitive["attributes"]["COLOR_0"] = file.accessor(values, normalized=True)
    expected = (srgb_from_linear(torch.tensor([1.0, 0.2, 0.0])) * 255).round().int().tolist()
    assert color_at(read(tmp_path, file), 5, NEAR_CORNER) == expected


def test_a_texture_transform_moves_turns_and_scales_the_coordinates(tmp_path: Path) -> None:
    file = textured_box()
    texture = file.material["pbrMetallicRoughness"]["baseColorTexture"]
    texture["extensions"] = {"KHR_texture_transform": {"offset": [0.5, 0.25], "rotation": math.pi / 2, "scale": [0.5, 0.5]}}
    found = read(tmp_path, file)
    u, v = box()[2][0].tolist()
    # (u, v) -> scaled, turned counter-clockwise with v down, moved.
    np.testing.assert_allclose(found.mesh.uv[0], [0.5 + 0.5 * v, 0.25 - 0.5 * u], atol=1e-6)


@pytest.mark.parametrize("by_transform", [False, True])
def test_the_second_texture_coordinates_count_where_the_material_says_so(tmp_path: Path, *, by_transform: bool) -> None:
    file = textured_box()
    other = np.full((24, 2), 0.75, np.float32)
    file.primitive["attributes"]["TEXCOORD_1"] = file.accessor(other)
    texture = file.material["pbrMetallicRoughness"]["baseColorTexture"]
    if by_transform:
        texture["extensions"] = {"KHR_texture_transform": {"texCoord": 1}}
    else:
        texture["texCoord"] = 1
    assert color_at(read(tmp_path, file), 0, NEAR_CORNER) == list(COLORS[3])


@pytest.mark.parametrize(("mode", "at"), [(33071, COLORS[3]), (33648, COLORS[2]), (10497, COLORS[2])])
def test_samplers_say_how_a_texture_goes_on(tmp_path: Path, mode: int, at: tuple[int, int, int]) -> None:
    file = textured_box()
    uvs = np.tile(np.array([[1.25 if mode == 10497 else 1.75, 0.75]], np.float32), (24, 1))
    file.primitive["attributes"]["TEXCOORD_0"] = file.accessor(uvs)
    file.document["samplers"] = [{"wrapS": mode, "wrapT": mode}]
    file.document["textures"][0]["sampler"] = 0
    assert color_at(read(tmp_path, file), 0, NEAR_CORNER) == list(at)


def test_a_strip_alternates_its_winding_and_a_fan_keeps_its_centre(tmp_path: Path) -> None:
    for mode, corners in ((5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])):
        file = textured_box()
        file.primitive.update(mode=mode, indices=file.accessor(np.array(corners, np.uint16)))
        found = read(tmp_path, file)
        vertices, faces = found.vertices, found.mesh.faces.numpy()
        normals = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
        assert len(faces) == 2
        # Both triangles of the quad face the same way and cover it together.
        np.testing.assert_allclose(normals[0], normals[1], atol=1e-7)
        assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(1.6 * 0.6, rel=1e-6)


def test_sparse_accessors_replace_single_entries_with_and_without_a_base(tmp_path: Path) -> None:
    for with_base in (True, False):
        file = textured_box()
        positions = box()[0]
        rows = np.arange(24, dtype=np.uint16) if not with_base else np.array([3], np.uint16)
        values = positions if not with_base else positions[:1] * 3
        sparse = {
            "count": len(rows),
            "indices": {"bufferView": file.view(rows.tobytes()), "componentType": 5123},
            "values": {"bufferView": file.view(values.tobytes())},
        }
        accessor = file.document["accessors"][file.primitive["attributes"]["POSITION"]]
        accessor["sparse"] = sparse
        if not with_base:
            del accessor["bufferView"]
        found = read(tmp_path, file)
        expected = positions.copy()
        expected[rows] = values
        np.testing.assert_allclose(found.vertices, expected[:, [2, 0, 1]], atol=1e-7)


def test_instances_stand_at_each_place_with_rotation_and_scale(tmp_path: Path) -> None:
    file = textured_box()
    file.require("EXT_mesh_gpu_instancing")
    half = math.sqrt(0.5)
    attributes = {
        "TRANSLATION": file.accessor(np.array([[0, 0, 0], [3, 0, 0]], np.float32)),
        "ROTATION": file.accessor(np.array([[0, 0, 0, 1], [0, 0, half, half]], np.float32)),
        "SCALE": file.accessor(np.array([[1, 1, 1], [2, 2, 2]], np.float32)),
    }
    file.node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    found = read(tmp_path, file)
    assert len(found.mesh.faces) == 24
    # The second one is twice as large and lies on its side: 3.2 long in x, 2 high.
    np.testing.assert_allclose(size_of(found), (1.2, 0.5 + 3 + 1.6, 2.0), atol=1e-5)


def test_morph_targets_count_at_the_weights_of_the_file(tmp_path: Path) -> None:
    file = textured_box()
    moved = np.zeros((24, 3), np.float32)
    moved[:, 1] = box()[0][:, 1]
    file.primitive["targets"] = [{"POSITION": file.accessor(moved)}]
    file.document["meshes"][0]["weights"] = [0.5]
    np.testing.assert_allclose(size_of(read(tmp_path, file)), (0.6, 1.0, 2.4), atol=1e-6)
    file.document["meshes"][0]["weights"] = [0.5, 0.5]
    with pytest.raises(MeshError, match="1 morph targets with 2 weights"):
        read(tmp_path, file)


def test_a_rigged_mesh_stands_in_the_pose_of_its_nodes_and_this_is_said(tmp_path: Path) -> None:
    file = textured_box()
    half = math.sqrt(0.5)
    file.document["nodes"] = [{"mesh": 0, "skin": 0, "scale": [100, 100, 1]}, {"rotation": [0, 0, half, half]}]
    file.document["scenes"] = [{"nodes": [0, 1]}]
    file.document["skins"] = [{"joints": [1]}]
    attributes = file.primitive["attributes"]
    attributes["JOINTS_0"] = file.accessor(np.zeros((24, 4), np.uint8))
    attributes["WEIGHTS_0"] = file.accessor(np.tile(np.array([[1, 0, 0, 0]], np.float32), (24, 1)))
    found = read(tmp_path, file)
    # Only the joint moves a skinned mesh: a quarter turn around z, and the node's own scale does not count.
    np.testing.assert_allclose(size_of(found), (0.6, 1.6, 1.0), atol=1e-6)
    assert any("rigged" in note for note in found.notes)


def test_specular_glossiness_gives_its_diffuse_colour(tmp_path: Path) -> None:
    file = textured_box()
    diffuse = {"diffuseFactor": [0.5, 0.5, 0.5, 1], "diffuseTexture": {"index": 0}}
    file.document["materials"] = [{"extensions": {"KHR_materials_pbrSpecularGlossiness": diffuse}}]
    wanted = (srgb_from_linear(linear_from_srgb(torch.tensor(COLORS[2]) / 255) * 0.5) * 255).round().int().tolist()
    assert color_at(read(tmp_path, file), 0, NEAR_CORNER) == wanted


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_grey_textures_are_scaled_and_not_clipped(tmp_path: Path, dtype: type) -> None:
    file = textured_box()
    grey = np.full((4, 4), 128 if dtype is np.uint8 else 128 * 257, dtype)
    file.document["images"][0]["bufferView"] = file.view(png(grey))
    assert color_at(read(tmp_path, file), 0, NEAR_CORNER) == [128] * 3


def test_what_only_glows_shows_its_emission(tmp_path: Path) -> None:
    file = textured_box()
    black = {"baseColorFactor": [0, 0, 0, 1]}
    file.document["materials"] = [{"pbrMetallicRoughness": black, "emissiveTexture": {"index": 0}, "emissiveFactor": [1, 1, 1]}]
    found = read(tmp_path, file)
    assert color_at(found, 0, NEAR_CORNER) == list(COLORS[2])
    assert any("glows" in note for note in found.notes)


def _far(file: GltfFile) -> None:
    file.node["translation"] = [12_958_095.12, 0, 4_865_499.47]


def _huge(file: GltfFile) -> None:
    file.node["scale"] = [1e39, 1e39, 1e39]


def _tiny(file: GltfFile) -> None:
    file.node["scale"] = [1e-12, 1e-12, 1e-12]


def _mirrored(file: GltfFile) -> None:
    file.node["scale"] = [-1, 1, 1]


def _no_scene(file: GltfFile) -> None:
    del file.document["scene"], file.document["scenes"]


@pytest.mark.parametrize("change", [_far, _huge, _tiny, _mirrored, _no_scene])
def test_a_box_keeps_its_proportions_and_faces_outward_wherever_it_stands(
    tmp_path: Path, change: Callable[[GltfFile], None]
) -> None:
    file = textured_box()
    change(file)
    mesh = read(tmp_path, file).normalized(1.0)
    proportions = (mesh.vertices.amax(0) - mesh.vertices.amin(0)) * math.sqrt(0.6**2 + 1 + 1.6**2) / 2
    np.testing.assert_allclose(proportions, WORLD_SIZE, atol=1e-5)
    corners = mesh.vertices[mesh.faces]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert bool(((normals * corners.mean(1)).sum(-1) > 0).all())
    assert bool(((normals * mesh.normals[mesh.faces[:, 0]]).sum(-1) > 0).all())


def test_a_flat_scale_leaves_a_flat_object(tmp_path: Path) -> None:
    file = textured_box()
    file.node["scale"] = [1, 1, 0]
    np.testing.assert_allclose(size_of(read(tmp_path, file)), (0, 1.0, 1.6), atol=1e-7)


def test_one_stray_triangle_is_told(tmp_path: Path) -> None:
    file = textured_box()
    positions, normals, uvs, faces = box()
    stray = np.array([[40, 0, 0], [40.1, 0, 0], [40, 0.1, 0]], np.float32)
    attributes = file.primitive["attributes"]
    attributes["POSITION"] = file.accessor(np.concatenate([positions, stray]))
    attributes["NORMAL"] = file.accessor(np.concatenate([normals, normals[:3]]))
    attributes["TEXCOORD_0"] = file.accessor(np.concatenate([uvs, uvs[:3]]))
    file.primitive["indices"] = file.accessor(np.concatenate([faces.reshape(-1), [24, 25, 26]]).astype(np.uint16))
    note = next(note for note in read(tmp_path, file).notes if "far from the rest" in note)
    assert note.startswith("1 triangles, 0.")


def test_pictures_and_buffers_beside_a_gltf_are_read(tmp_path: Path) -> None:
    file = textured_box()
    Image.fromarray(quarters()).save(tmp_path / "my atlas.png")
    file.document["images"][0] = {"uri": "my%20atlas.png"}
    (tmp_path / "box.bin").write_bytes(file.data)
    file.document["buffers"] = [{"uri": "box.bin", "byteLength": len(file.data)}]
    content = file.glb()
    length = int.from_bytes(content[12:16], "little")
    (tmp_path / "box.gltf").write_bytes(content[20 : 20 + length])
    found = read_mesh(tmp_path / "box.gltf")
    np.testing.assert_allclose(size_of(found), WORLD_SIZE, atol=1e-7)
    assert color_at(found, 0, NEAR_CORNER) == list(COLORS[2])
