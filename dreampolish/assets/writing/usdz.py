"""USDZ through usd-core: one mesh with a UsdPreviewSurface, +Y up, +Z front, metres."""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdShade, UsdUtils, UsdValidation, Vt
from torch import Tensor

from dreampolish.assets.asset import GLTF_FROM_WORLD, Asset, checked, pixels_of
from dreampolish.assets.findings import FileFindings
from dreampolish.optim.atomic_files import write_atomically
from dreampolish.scene.untrusted.usdz import package_errors

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
        layer, package = Path(folder) / "asset.usdc", Path(folder) / "asset.usdz"
        _write_stage(layer, asset)
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(package)):
            raise ValueError(f"usd-core could not pack {path.name}")
        write_atomically(path, package.read_bytes())
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
    color = _texture(stage=stage, reader=reader, folder=folder, name="base_color", texture=asset.mesh.textures[0], space="sRGB")
    surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(color.ConnectableAPI(), "rgb")
    if asset.normal_map is not None:
        normal = _texture(stage=stage, reader=reader, folder=folder, name="normal", texture=asset.normal_map, space="raw")
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


CHECKER = "usd-core"


def usdz_findings(path: Path) -> FileFindings:
    """Errors, warnings and figures. A stage that usd-core cannot open is an error; so is what `package_errors` finds before that."""
    errors = package_errors(path)
    if errors:
        return FileFindings(CHECKER, tuple(errors))
    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as error:
        return FileFindings(CHECKER, (f"usd-core cannot open it: {str(error).strip().splitlines()[-1]}",))
    meshes = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    if not meshes:
        return FileFindings(CHECKER, ("holds no mesh",))
    warnings = [] if stage.GetDefaultPrim() else ["names no default prim"]
    found = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators()).Validate(stage)
    for entry in found:
        text = f"{entry.GetName()}: {entry.GetMessage()}"
        (errors if entry.GetType() == UsdValidation.ValidationErrorType.Error else warnings).append(text)
    for mesh in meshes:
        complaint = _mesh_error(mesh)
        errors += [complaint] if complaint else []
    triangles = sum(sum(count - 2 for count in mesh.GetFaceVertexCountsAttr().Get() or ()) for mesh in meshes)
    figures = {"triangles": float(triangles), "metres_per_unit": UsdGeom.GetStageMetersPerUnit(stage)}
    return FileFindings(CHECKER, tuple(errors), tuple(warnings), figures)


def _mesh_error(mesh: UsdGeom.Mesh) -> str:
    counts, corners = mesh.GetFaceVertexCountsAttr().Get(), mesh.GetFaceVertexIndicesAttr().Get()
    points = mesh.GetPointsAttr().Get()
    if not counts or not corners or not points:
        return f"{mesh.GetPath()} is empty"
    valid, why = UsdGeom.Mesh.ValidateTopology(corners, counts, len(points))
    return "" if valid else f"{mesh.GetPath()}: {why}"
