"""From a surface and its colours to a GLB and back: unwrapping, baking, tangents, the file format."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from dreampolish.assets.asset import plain_asset
from dreampolish.assets.bake import bake, bake_normal_map, texels_of
from dreampolish.assets.reading.read import read_mesh
from dreampolish.assets.textured_mesh import (
    TexturedMesh,
    linear_from_srgb,
    render_textured_mesh,
    srgb_from_linear,
    texels_bilinear,
)
from dreampolish.assets.unwrap import Unwrapped, unwrap
from dreampolish.assets.writing.glb import read_glb, write_glb
from dreampolish.mesh.tangents import tangents_from_uv
from dreampolish.mesh.topology import face_adjacency
from dreampolish.metrics.pictures import psnr
from dreampolish.renderers.mesh import render_mesh
from dreampolish.scene.cameras import turntable_cameras


def _waves(points: Tensor, normals: Tensor) -> Tensor:
    """Smooth colours that differ everywhere."""
    return 0.5 + 0.5 * torch.sin(9 * points + torch.tensor([0.0, 1.0, 2.0]))


@pytest.fixture(scope="module")
def torus() -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.torus(0.4, 0.15, major_sections=40, minor_sections=20)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.int64)


@pytest.fixture(scope="module")
def unwrapped(torus: tuple[Tensor, Tensor]) -> Unwrapped:
    return unwrap(*torus, texture_size=256, padding=4)


@pytest.fixture(scope="module")
def asset(unwrapped: Unwrapped) -> TexturedMesh:
    texture = bake(_waves, unwrapped, texels_of(unwrapped, 256, 4))
    zeros = torch.zeros(len(unwrapped.faces), dtype=torch.int64)
    return TexturedMesh(unwrapped.vertices, unwrapped.normals, unwrapped.uv, unwrapped.faces, (texture,), zeros)


def test_unwrapping_keeps_the_surface_and_charts_do_not_overlap(torus: tuple[Tensor, Tensor], unwrapped: Unwrapped) -> None:
    vertices, faces = torus
    assert torch.equal(unwrapped.source[unwrapped.faces], faces)
    assert torch.equal(unwrapped.vertices, vertices[unwrapped.source])
    assert unwrapped.uv.min() >= 0
    assert unwrapped.uv.max() <= 1
    corner = unwrapped.uv[unwrapped.faces]
    edge = corner[:, 1:] - corner[:, :1]
    area = (edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]).abs() / 2
    covered = len(texels_of(unwrapped, 512, 0).row) / 512**2
    assert covered == pytest.approx(area.sum().item(), rel=0.01)  # the union's area is the sum of areas
    with pytest.raises(ValueError, match="empty mesh"):
        unwrap(vertices, faces[:0], 256, 4)


def test_texels_know_their_place(unwrapped: Unwrapped) -> None:
    texels = texels_of(unwrapped, 128, 0)
    uv = texels.interpolate(unwrapped.faces, unwrapped.uv)
    centres = (torch.stack([texels.column, texels.row], dim=-1) + 0.5) / 128
    assert (uv - centres).abs().max() < 1e-5
    with pytest.raises(ValueError, match="texture size is 100"):
        texels_of(unwrapped, 100, 0)


def test_dilation_extends_charts_by_its_pixels_with_surface_colours(unwrapped: Unwrapped) -> None:
    bare, wide = texels_of(unwrapped, 128, 0), texels_of(unwrapped, 128, 3)
    inside = set(zip(bare.row.tolist(), bare.column.tolist(), strict=True))
    outside = [place for place in zip(wide.row.tolist(), wide.column.tolist(), strict=True) if place not in inside]
    known = torch.stack([bare.row, bare.column], dim=-1).float()
    distance = torch.cdist(torch.tensor(outside).float(), known).amin(1)
    assert len(outside) > 100
    assert distance.max() <= 3
    assert torch.equal(torch.unique(wide.face), torch.unique(bare.face))


def test_baked_asset_looks_like_its_colour_function(torus: tuple[Tensor, Tensor], asset: TexturedMesh, tmp_path: Path) -> None:
    cameras = turntable_cameras(3, 25.0, 20.0, 96)
    direct = render_mesh(*torus, cameras, _waves, 2, True, True, face_adjacency(torus[1]))
    path = tmp_path / "asset.glb"
    write_glb(path, plain_asset(asset, "torus", {}), None)
    for mesh in (asset, read_glb(path)):
        baked = render_textured_mesh(mesh, cameras, 2, True)
        for ours, wanted, seen in zip(baked.rgb, direct.rgb, direct.alpha > 0, strict=True):
            assert psnr(ours[seen][None, None], wanted[seen][None, None]) > 36
        assert (baked.normals_world - direct.normals_world).abs().max() < 1e-4


def test_glb_comes_back_as_it_was_written(asset: TexturedMesh, tmp_path: Path) -> None:
    path = tmp_path / "asset.glb"
    write_glb(path, plain_asset(asset, "torus", {"prompt": 'a "torus"'}), None)
    back = read_glb(path)
    assert torch.equal(back.vertices, asset.vertices)
    assert torch.equal(back.faces, asset.faces)
    assert torch.allclose(back.uv, asset.uv, atol=1e-6)
    assert torch.allclose(back.normals, asset.normals, atol=1e-6)
    assert (back.textures[0] - asset.textures[0]).abs().max() <= 0.5 / 255 + 1e-6


def test_glb_is_laid_out_as_the_format_says(asset: TexturedMesh, tmp_path: Path) -> None:
    path = tmp_path / "asset.glb"
    flat = torch.tensor([0.5, 0.5, 1.0]).expand(16, 16, 3)
    described = replace(plain_asset(asset, "torus", {"seed": 7}), normal_map=flat, roughness=0.7, metallic=0.2)
    write_glb(path, described, 90)
    content = path.read_bytes()
    magic, version, length, json_length = struct.unpack("<4sIII", content[:16])
    document = json.loads(content[20 : 20 + json_length])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    assert json_length % 4 == 0
    assert document["asset"] == {"version": "2.0", "generator": "DreamPolish", "extras": {"seed": 7}}
    surface = document["materials"][0]["pbrMetallicRoughness"]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (0.2, 0.7)
    assert [image["mimeType"] for image in document["images"]] == ["image/jpeg", "image/jpeg"]
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    position = document["accessors"][attributes["POSITION"]]
    turned = asset.vertices[:, [1, 2, 0]]
    assert position["max"] == pytest.approx(turned.amax(0).tolist())
    assert position["min"] == pytest.approx(turned.amin(0).tolist())
    assert set(attributes) == {"POSITION", "NORMAL", "TANGENT", "TEXCOORD_0"}


def test_front_faces_positive_z_and_up_is_y(tmp_path: Path) -> None:
    """A triangle in front (+x) of a taller one: in the file the first has the largest z, the second the largest y."""
    vertices = torch.tensor([[0.5, 0, 0], [0.5, 0.1, 0], [0.5, 0, 0.1], [0, 0, 0], [0, 0.1, 0], [0, 0, 0.4]])
    normals = torch.tensor([1.0, 0, 0]).expand(6, 3)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    colors = (torch.full((1, 1, 3), 0.2), torch.full((1, 1, 3), 0.8))
    mesh = TexturedMesh(vertices, normals, vertices[:, 1:], faces, colors, torch.tensor([0, 1]))
    write_glb(tmp_path / "two.glb", plain_asset(mesh, "two", {}), None)
    raw = trimesh.load_scene(tmp_path / "two.glb", process=False).to_geometry()
    assert raw.bounds[1].tolist() == pytest.approx([0.1, 0.4, 0.5])
    back = read_glb(tmp_path / "two.glb")
    assert torch.equal(back.vertices[back.faces[:1]], vertices[faces[:1]])
    picture = render_textured_mesh(back, turntable_cameras(1, 0.0, 20.0, 64), 1, False)
    assert {round(float(c), 1) for c in picture.rgb[picture.alpha == 1][:, 0]} == {0.2, 0.8}


def split_square(at: float) -> tuple[Tensor, Tensor]:
    """Six vertices and two triangles that meet at a seam, facing the viewer."""
    corners = torch.tensor(
        [[at, -0.3, -0.3], [at, 0.3, -0.3], [at, 0.3, 0.3], [at, -0.3, -0.3], [at, 0.3, 0.3], [at, -0.3, 0.3]]
    )
    return corners, torch.tensor([[0, 1, 2], [3, 4, 5]])


def test_a_seam_of_the_texture_is_no_edge_of_the_surface() -> None:
    vertices, faces = split_square(0.0)
    colors = (torch.full((1, 1, 3), 0.2), torch.full((1, 1, 3), 0.8))
    mesh = TexturedMesh(vertices, torch.tensor([1.0, 0, 0]).expand(6, 3), vertices[:, 1:], faces, colors, torch.tensor([0, 1]))
    picture = render_textured_mesh(mesh, turntable_cameras(1, 0.0, 20.0, 64), 1, False)
    inside = picture.rgb[picture.alpha == 1][:, 0]
    assert ((inside - 0.2).abs().min((inside - 0.8).abs()) < 1e-5).all()  # nothing is blended over the diagonal


def test_sheets_back_to_back_keep_the_neighbours_that_their_own_vertices_name() -> None:
    front, faces = torch.unique(split_square(0.0)[0], dim=0, return_inverse=True)
    faces = torch.cat([faces.view(2, 3), faces.view(2, 3).flip(-1) + len(front)])
    mesh = TexturedMesh(
        torch.cat([front, front]),
        torch.zeros(8, 3),
        torch.zeros(8, 2),
        faces,
        (torch.zeros(1, 1, 3),),
        torch.zeros(4, dtype=torch.long),
    )
    own = face_adjacency(faces)
    assert torch.equal(mesh.adjacency[own >= 0], own[own >= 0])


def test_foreign_factors_are_linear_and_nodes_move_their_meshes(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    box.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(baseColorFactor=[128, 255, 0, 255]))
    scene = trimesh.Scene()
    scene.add_geometry(box, transform=trimesh.transformations.compose_matrix(scale=[-2, 1, 1], translate=[0, 3, 0]))
    (tmp_path / "box.glb").write_bytes(scene.export(file_type="glb"))
    mesh = read_glb(tmp_path / "box.glb")
    assert mesh.vertices.amin(0).tolist() == pytest.approx([-0.5, -1, 2.5])  # world = (z, x, y) of glTF
    assert mesh.textures[0].flatten().tolist() == pytest.approx([0.7366, 1, 0], abs=2e-3)
    outward = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy())
    assert outward.volume == pytest.approx(2)
    sized = read_mesh(tmp_path / "box.glb").normalized(0.6)
    assert sized.vertices.norm(dim=-1).max().item() == pytest.approx(0.6)
    assert (sized.vertices.amin(0) + sized.vertices.amax(0)).abs().max() < 1e-6


def test_unreadable_files_are_refused_in_one_line_and_large_textures_are_averaged_down(tmp_path: Path) -> None:
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"glTF nonsense")
    with pytest.raises(ValueError, match=r"broken\.glb is refused: not a GLB"):
        read_glb(broken)
    plane = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    huge = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("L", (5000, 2)))
    plane.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [0, 1]], material=huge)
    (tmp_path / "huge.glb").write_bytes(plane.export(file_type="glb"))
    found = read_mesh(tmp_path / "huge.glb")
    assert found.mesh.textures[0].shape == (1, 2500, 3)
    assert any("1/2" in note for note in found.notes)


def test_transfer_curve_has_its_known_values_and_inverse() -> None:
    values = torch.linspace(0, 1, 50)
    assert torch.allclose(linear_from_srgb(srgb_from_linear(values)), values, atol=1e-6)
    assert srgb_from_linear(torch.tensor([0.0, 0.2140, 1.0])).tolist() == pytest.approx([0, 0.5, 1], abs=1e-3)


def test_bilinear_lookup_hits_centres_interpolates_and_has_gradients() -> None:
    texture = torch.rand(4, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centre = torch.tensor([[2.5 / 8, 1.5 / 4]], dtype=torch.float64)
    assert torch.allclose(texels_bilinear(texture, centre)[0], texture[1, 2])
    between = centre + torch.tensor([[0.25 / 8, 0.0]], dtype=torch.float64)
    assert torch.allclose(texels_bilinear(texture, between)[0], 0.75 * texture[1, 2] + 0.25 * texture[1, 3])
    assert torch.allclose(texels_bilinear(texture, centre + 1), texels_bilinear(texture, centre))
    uv = torch.rand(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(texels_bilinear, (texture.requires_grad_(), uv.requires_grad_()))


def test_tangents_of_a_textured_plane() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces, normals = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([0.0, 0, 1]).expand(4, 3)
    upright = torch.stack([vertices[:, 0], 1 - vertices[:, 1]], dim=-1)  # v grows downward
    assert torch.allclose(tangents_from_uv(vertices, normals, upright, faces), torch.tensor([1.0, 0, 0, 1]).expand(4, 4))
    mirrored = torch.stack([1 - vertices[:, 0], 1 - vertices[:, 1]], dim=-1)
    assert torch.allclose(tangents_from_uv(vertices, normals, mirrored, faces), torch.tensor([-1.0, 0, 0, -1]).expand(4, 4))
    without = tangents_from_uv(vertices, normals, upright * 0, faces)
    assert torch.allclose(without[:, :3].norm(dim=-1), torch.ones(4))
    assert without[:, 2].abs().max() == 0


def test_normal_map_decodes_to_the_fine_normals(unwrapped: Unwrapped) -> None:
    def bumpy(points: Tensor, normals: Tensor) -> Tensor:
        return torch.nn.functional.normalize(normals + 0.3 * torch.sin(20 * points), dim=-1)

    texels = texels_of(unwrapped, 128, 2)
    tangents = tangents_from_uv(unwrapped.vertices, unwrapped.normals, unwrapped.uv, unwrapped.faces)
    flat = bake_normal_map(lambda points, normals: normals, unwrapped, texels, tangents)
    assert torch.allclose(flat, torch.tensor([0.5, 0.5, 1.0]).expand_as(flat), atol=1e-5)
    local = bake_normal_map(bumpy, unwrapped, texels, tangents)[texels.row, texels.column] * 2 - 1
    normal = torch.nn.functional.normalize(texels.interpolate(unwrapped.faces, unwrapped.normals), dim=-1)
    side = texels.interpolate(unwrapped.faces, tangents)
    along = torch.nn.functional.normalize(side[:, :3] - (side[:, :3] * normal).sum(-1, keepdim=True) * normal, dim=-1)
    across = torch.linalg.cross(normal, along) * side[:, 3:].sign()
    decoded = local[:, :1] * along + local[:, 1:2] * across + local[:, 2:] * normal
    expected = bumpy(texels.interpolate(unwrapped.faces, unwrapped.vertices), normal)
    assert (decoded - expected).abs().max() < 1e-4
