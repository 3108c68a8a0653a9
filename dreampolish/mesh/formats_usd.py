"""USDZ through usd-core: one mesh with a UsdPreviewSurface, +Y up, +Z front, metres."""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdUtils, Vt
from torch import Tensor

from dreampolish.mesh.asset import GLTF_FROM_WORLD, Asset, checked, pixels_of

_ROOT = "/Asset"
_NORMAL_SCALE, _NORMAL_BIAS = Gf.Vec4f(2, 2, 2, 1), Gf.Vec4f(-1, -1, -1, 0)


def write_usdz(path: Path, asset: Asset) -> list[Path]:
    """An uncompressed USDZ whose files start at multiples of 64 bytes, as its specification wants; the paths that were written.

    The asset's extras stand in the layer's custom data as JSON. Raises ValueError for several textures, or as `checked` does.
    """
    checked(asset.mesh)
    if len(asset.mesh.textures) != 1:
        raise ValueError(f"USDZ is written for one texture, the mesh has {len(asset.mesh.textures)}")
    with tempfile.TemporaryDirectory() as folder:
        layer = Path(folder) / "asset.usdc"
        _write_stage(layer, asset)
        partial = path.with_name(f".{path.name}.partial.usdz")
        try:
            if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(partial)):
                raise ValueError(f"usd-core could not pack {path.name}")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return [path]


def _write_stage(layer: Path, asset: Asset) -> None:
    stage = Usd.Stage.CreateNew(str(layer))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, _ROOT)
    stage.SetDefaultPrim(root.GetPrim())
    Usd.ModelAPI(root.GetPrim()).SetKind("component")
    root.GetPrim().SetCustomDataByKey("dreampolish", json.dumps(asset.extras, allow_nan=False))
    mesh = _define_mesh(stage, asset)
    material = _define_material(stage, layer.parent, asset)
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
    stage.GetRootLayer().Save()


def _vectors(values: Tensor, kind: type) -> object:
    return kind.FromNumpy(np.ascontiguousarray(values.detach().cpu().float().numpy()))  # type: ignore[attr-defined]


def _define_mesh(stage: Usd.Stage, asset: Asset) -> UsdGeom.Mesh:
    source = asset.mesh
    mesh = UsdGeom.Mesh.Define(stage, f"{_ROOT}/Mesh")
    vertices = source.vertices[:, GLTF_FROM_WORLD]
    mesh.CreatePointsAttr(_vectors(vertices, Vt.Vec3fArray))
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(source.faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(source.faces.reshape(-1).cpu().numpy().astype(np.int32)))
    mesh.CreateNormalsAttr(_vectors(source.normals[:, GLTF_FROM_WORLD], Vt.Vec3fArray))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    box = torch.stack([vertices.amin(0), vertices.amax(0)])
    mesh.CreateExtentAttr(_vectors(box, Vt.Vec3fArray))
    uv = source.uv.clone()
    # USD's t grows upwards.
    uv[:, 1] = 1 - uv[:, 1]
    place = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
    place.Set(_vectors(uv, Vt.Vec2fArray))
    return mesh


def _define_material(stage: Usd.Stage, folder: Path, asset: Asset) -> UsdShade.Material:
    material = UsdShade.Material.Define(stage, f"{_ROOT}/Material")
    surface = UsdShade.Shader.Define(stage, f"{_ROOT}/Material/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(asset.roughness)
    surface.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(asset.metallic)
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    reader = UsdShade.Shader.Define(stage, f"{_ROOT}/Material/Place")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    color = _texture(stage, reader, folder, "base_color", asset.mesh.textures[0], "sRGB")
    surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(color.ConnectableAPI(), "rgb")
    if asset.normal_map is not None:
        normal = _texture(stage, reader, folder, "normal", asset.normal_map, "raw")
        normal.CreateInput("scale", Sdf.ValueTypeNames.Float4).Set(_NORMAL_SCALE)
        normal.CreateInput("bias", Sdf.ValueTypeNames.Float4).Set(_NORMAL_BIAS)
        surface.CreateInput("normal", Sdf.ValueTypeNames.Normal3f).ConnectToSource(normal.ConnectableAPI(), "rgb")
    return material


def _texture(
    stage: Usd.Stage, reader: UsdShade.Shader, folder: Path, name: str, texture: Tensor, space: str
) -> UsdShade.Shader:
    Image.fromarray(pixels_of(texture)).save(folder / f"{name}.png", "PNG", optimize=True)
    shader = UsdShade.Shader.Define(stage, f"{_ROOT}/Material/{name.title().replace('_', '')}")
    shader.CreateIdAttr("UsdUVTexture")
    shader.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(Sdf.AssetPath(f"./{name}.png"))
    shader.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set(space)
    for axis in ("wrapS", "wrapT"):
        shader.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("clamp")
    shader.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
    shader.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    return shader
