"""Files in every format: read again by other libraries, and damaged ones refused."""

import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.assets.asset import GLTF_FROM_WORLD, Asset, pixels_of
from dreampolish.assets.bake import bake, texels_of
from dreampolish.assets.findings import FileFindings
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.unwrap import unwrap
from dreampolish.assets.validate import findings_of, glb_findings
from dreampolish.assets.writing.glb import write_glb
from dreampolish.assets.writing.obj_ply_stl import write_obj, write_ply, write_stl
from dreampolish.assets.writing.usdz import write_usdz

SIZES = (0.5, 0.3, 1.0)
"""World x, y, z of the box: +Y up and +Z front make it 0.3 x 1.0 x 0.5 in a file."""


def _by_place(points: Tensor, normals: Tensor) -> Tensor:
    return (points / torch.tensor(SIZES) + 0.5).clamp(0, 1)


@pytest.fixture(scope="module")
def asset() -> Asset:
    box = trimesh.creation.box(SIZES).subdivide()
    unwrapped = unwrap(torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces), 128, 4)
    texture = bake(_by_place, unwrapped, texels_of(unwrapped, 128, 4))
    everywhere = torch.zeros(len(unwrapped.faces), dtype=torch.int64)
    mesh = TexturedMesh(unwrapped.vertices, unwrapped.normals, unwrapped.uv, unwrapped.faces, (texture,), everywhere)
    flat = torch.tensor([0.5, 0.5, 1.0]).expand(128, 128, 3)
    return Asset(mesh, unwrapped.source, flat, 0.8, 0.1, "box", {"prompt": 'a "box"', "seed": 7})


def test_obj_has_its_axes_its_material_and_its_colours(asset: Asset, tmp_path: Path) -> None:
    written = write_obj(tmp_path / "box.obj", asset)
    assert sorted(path.name for path in written) == ["box.mtl", "box.obj", "box_base_color.png", "box_normal.png"]
    back = trimesh.load_mesh(tmp_path / "box.obj", process=False)
    assert back.extents.tolist() == pytest.approx([0.3, 1.0, 0.5])
    assert len(back.faces) == len(asset.mesh.faces)
    assert trimesh.Trimesh(back.vertices, back.faces, process=True).volume == pytest.approx(0.15)  # outward
    picture = np.asarray(back.visual.material.image.convert("RGB"), dtype=np.float64) / 255
    column = np.clip((back.visual.uv[:, 0] * 128).astype(int), 0, 127)
    row = np.clip(((1 - back.visual.uv[:, 1]) * 128).astype(int), 0, 127)
    expected = back.vertices[:, [2, 0, 1]] / np.array(SIZES) + 0.5  # the colour is the place, in world axes
    assert np.abs(picture[row, column] - expected).max() < 0.05
    (tmp_path / "box_base_color.png").unlink()
    assert findings_of(tmp_path / "box.obj").errors == ("box_base_color.png is named but not there",)


def test_ply_is_closed_and_coloured_at_its_vertices(asset: Asset, tmp_path: Path) -> None:
    write_ply(tmp_path / "box.ply", asset)
    back = trimesh.load_mesh(tmp_path / "box.ply", process=False)
    assert back.is_watertight
    assert back.volume == pytest.approx(0.15)
    expected = back.vertices[:, [2, 0, 1]] / np.array(SIZES) + 0.5
    assert np.abs(back.visual.vertex_colors[:, :3] / 255 - expected).max() < 0.12  # a texel of the short side
    solid = asset.seamless()
    assert np.array_equal(back.vertices.astype(np.float32), solid.vertices[:, GLTF_FROM_WORLD].numpy())
    stored = back.metadata["_ply_raw"]["vertex"]["data"]  # trimesh computes normals anew
    normals = np.stack([stored[name] for name in ("nx", "ny", "nz")], axis=-1)
    assert np.array_equal(normals, solid.normals[:, GLTF_FROM_WORLD].numpy())
    assert np.array_equal(back.faces, solid.faces.numpy())
    assert np.array_equal(back.visual.vertex_colors[:, :3], pixels_of(solid.colors[None])[0])
    assert not findings_of(tmp_path / "box.ply").errors


def test_stl_stands_on_z_and_a_short_one_is_refused(asset: Asset, tmp_path: Path) -> None:
    path = tmp_path / "box.stl"
    write_stl(path, asset)
    back = trimesh.load_mesh(path)
    assert back.extents.tolist() == pytest.approx(SIZES)
    assert back.volume == pytest.approx(0.15)
    path.write_bytes(path.read_bytes()[:-60])
    assert "its count of faces says" in findings_of(path).errors[0]


@pytest.mark.parametrize("name", ["solid-oak-table", "Solid", "a-table"])
def test_an_stl_is_never_taken_for_the_text_form(asset: Asset, tmp_path: Path, name: str) -> None:
    path = tmp_path / "box.stl"
    write_stl(path, replace(asset, name=name))
    header = path.read_bytes()[:80]
    assert not header.lower().lstrip().startswith(b"solid"), "programs tell the two forms apart by this word"
    assert name.encode() in header
    assert trimesh.load_mesh(path).volume == pytest.approx(0.15)


def test_usdz_opens_with_its_material_and_is_aligned(asset: Asset, tmp_path: Path) -> None:
    from pxr import Usd, UsdGeom, UsdShade

    path = tmp_path / "box.usdz"
    write_usdz(path, asset)
    found = findings_of(path)
    assert (found.errors, found.warnings, found.figures["triangles"]) == ((), (), len(asset.mesh.faces))
    stage = Usd.Stage.Open(str(path))
    mesh = UsdGeom.Mesh(next(prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)))
    low, high = np.array(mesh.GetExtentAttr().Get())
    assert (high - low).tolist() == pytest.approx([0.3, 1.0, 0.5])
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    uv = np.array(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get())
    assert np.allclose(uv[:, 1], 1 - asset.mesh.uv[:, 1].numpy())
    surface = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()[0].ComputeSurfaceSource()[0]
    texture = surface.GetInput("diffuseColor").GetConnectedSource()[0].GetPrim()
    assert UsdShade.Shader(texture).GetInput("file").Get().resolvedPath.endswith("[base_color.png]")
    assert json.loads(stage.GetDefaultPrim().GetCustomDataByKey("dreampolish")) == asset.extras


def test_bad_usdz_is_refused(asset: Asset, tmp_path: Path) -> None:
    path = tmp_path / "box.usdz"
    write_usdz(path, asset)
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    told = " ".join(findings_of(path).errors)
    assert "is compressed" in told
    assert "no multiple of 64" in told
    path.write_bytes(b"not an archive")
    assert "no readable ZIP" in findings_of(path).errors[0]


def test_a_sound_glb_has_no_findings_and_each_damage_is_named(asset: Asset, tmp_path: Path) -> None:
    path = tmp_path / "box.glb"
    write_glb(path, asset, None)
    content = path.read_bytes()
    assert glb_findings(content) == FileFindings("trimesh's glTF schema", figures={"triangles": float(len(asset.mesh.faces))})
    for damage, reason in (
        (b"nonsense" * 4, "not a GLB"),
        (b"", "not a GLB"),
        (content[:-8], "the header says"),
        (edited(content, lambda d: d["accessors"][0].update(count=10**6)), "refused: accessor 0 wants 12000000 bytes"),
        (edited(content, lambda d: d["accessors"][0].update(count="many")), "'many' is not of type 'integer'"),
        (edited(content, lambda d: d["materials"][0]["normalTexture"].update(index=7)), "normalTexture cannot be read"),
        (edited(content, lambda d: d["images"][0].update(bufferView=0)), "image 0 is no PNG, JPEG or WebP"),
        (edited(content, lambda d: d["bufferViews"][1].update(byteLength=10**9)), "refused: bufferView 1 ends at byte"),
        (edited(content, lambda d: d.pop("accessors")), "cannot be read"),
        (edited(content, lambda d: d.update(meshes=[])), "[] should be non-empty ($.meshes)"),
        (edited(content, lambda d: d["asset"].update(version="1.0")), "asset.version"),
        (edited(content, lambda d: d["nodes"][0].update(mesh=5)), "cannot be read"),
    ):
        errors = glb_findings(damage).errors
        assert any(reason in error for error in errors), (reason, errors)


def edited(content: bytes, edit: object) -> bytes:
    """The GLB with its JSON changed, its lengths put right."""
    length = struct.unpack("<I", content[12:16])[0]
    document = json.loads(content[20 : 20 + length])
    edit(document)  # type: ignore[operator]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = content[20 + length :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def test_an_ending_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "box.fbx").write_bytes(b"")
    with pytest.raises(ValueError, match="ends in none of"):
        findings_of(tmp_path / "box.fbx")
