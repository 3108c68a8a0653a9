"""Reading USD (usd, usda, usdc, usdz) by usd-core: meshes in place, UsdPreviewSurface colours, display colours."""

import tempfile
from pathlib import Path

import numpy as np
from pxr import Ar, Gf, Tf, Usd, UsdGeom, UsdShade

from dreampolish.assets.reading.images import texture_of_bytes
from dreampolish.assets.reading.scene import REPEATED, Look, MeshError, Part, Scene, check_triangles
from dreampolish.assets.reading.source import MeshFiles, checked_reference

GREY = 0.18
"""Linear grey of UsdPreviewSurface without a colour."""


def read_usd(files: MeshFiles) -> Scene:
    """The meshes of a stage at its default time. Layers that it refers to are looked for beside it only. Raises MeshError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / files.name
        path.write_bytes(files.content)
        for name, content in files.beside.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        try:
            stage = Usd.Stage.Open(str(path))
        except Tf.ErrorException as error:
            raise MeshError(f"{files.name} cannot be opened by usd-core: {str(error).strip().splitlines()[-1][:120]}") from None
        outside = [
            layer.identifier
            for layer in stage.GetUsedLayers()
            if not layer.anonymous and not layer.identifier.startswith(folder)
        ]
        if outside:
            raise MeshError(f"{files.name} refers to {outside[0][:80]}, which lies outside its folder; flatten it first")
        return _scene(files, stage)


def _scene(files: MeshFiles, stage: Usd.Stage) -> Scene:
    parts: list[Part] = []
    notes: list[str] = []
    total, cache = 0, UsdGeom.XformCache()
    for prim in Usd.PrimRange.Stage(stage, Usd.TraverseInstanceProxies()):
        if not prim.IsA(UsdGeom.Mesh) or UsdGeom.Imageable(prim).ComputeVisibility() == UsdGeom.Tokens.invisible:
            continue
        mesh = UsdGeom.Mesh(prim)
        counts = np.asarray(mesh.GetFaceVertexCountsAttr().Get() or [], np.int64)
        total += int(np.maximum(counts - 2, 0).sum())
        check_triangles(total, files.name)
        if len(counts):
            matrix = np.array(cache.GetLocalToWorldTransform(prim), np.float64)
            parts.append(_part(files=files, mesh=mesh, counts=counts, matrix=matrix, number=len(parts), notes=notes))
        if (
            mesh.GetSubdivisionSchemeAttr().Get() not in (None, UsdGeom.Tokens.none)
            and mesh.GetSubdivisionSchemeAttr().IsAuthored()
        ):
            notes.append("the mesh is meant to be subdivided; its cage is worked with as it is")
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise MeshError(f"{files.name} holds no triangles: give a mesh of triangles")
    up = str(UsdGeom.GetStageUpAxis(stage)).lower()
    return Scene(tuple(parts), up, float(UsdGeom.GetStageMetersPerUnit(stage)), tuple(dict.fromkeys(notes)))


def _part(files: MeshFiles, mesh: UsdGeom.Mesh, counts: np.ndarray, matrix: np.ndarray, number: int, notes: list[str]) -> Part:
    """A mesh in place, one vertex a corner where its coordinates or normals are given by corner."""
    points = np.asarray(mesh.GetPointsAttr().Get() or [], np.float64).reshape(-1, 3)
    corners = np.asarray(mesh.GetFaceVertexIndicesAttr().Get() or [], np.int64)
    if counts.sum() != len(corners) or (len(corners) and (corners.max() >= len(points) or corners.min() < 0)):
        raise MeshError(f"{files.name}: {mesh.GetPath()} has faces that name vertices that are not there")
    faces = _fans(counts)
    if mesh.GetOrientationAttr().Get() == UsdGeom.Tokens.leftHanded:
        faces = faces[:, ::-1]
    look = _look(files, mesh, notes)
    uv, by_corner = _texture_coordinates(mesh, corners, len(points))
    positions = points @ matrix[:3, :3] + matrix[3, :3]
    if not np.isfinite(positions[np.unique(corners)]).all():
        raise MeshError(f"{files.name} has coordinates that are not finite numbers")
    rows = np.arange(len(corners)) if by_corner else corners
    mirrored = np.linalg.det(matrix[:3, :3]) < 0
    return Part(
        name=str(mesh.GetPrim().GetName()),
        look=look,
        positions=positions[corners] if by_corner else positions,
        faces=rows[faces][:, ::-1] if mirrored else rows[faces],
        uv=uv,
        normals=None,
        colors=None,
        origin=(number, 0),
        material=number,
    )


def _fans(counts: np.ndarray) -> np.ndarray:
    """Corners (F, 3), as places in the list of corners, of polygons cut into fans."""
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    extra = np.maximum(counts - 2, 0)
    start = np.repeat(first, extra)
    step = np.arange(extra.sum()) - np.repeat(np.cumsum(extra) - extra, extra)
    return np.stack([start, start + step + 1, start + step + 2], axis=1)


def _texture_coordinates(mesh: UsdGeom.Mesh, corners: np.ndarray, n_points: int) -> tuple[np.ndarray | None, bool]:
    """Coordinates in glTF's orientation, by vertex or by corner, and which of the two."""
    for primvar in UsdGeom.PrimvarsAPI(mesh).GetPrimvars():
        if "texCoord2" not in str(primvar.GetTypeName()) and primvar.GetPrimvarName() != "st":
            continue
        values = np.asarray(primvar.ComputeFlattened(), np.float64).reshape(-1, 2)
        values = np.stack([values[:, 0], 1 - values[:, 1]], axis=1)
        if primvar.GetInterpolation() == UsdGeom.Tokens.faceVarying and len(values) == len(corners):
            return values, True
        if len(values) == n_points:
            return values, False
    return None, False


def _look(files: MeshFiles, mesh: UsdGeom.Mesh, notes: list[str]) -> Look:
    material, _ = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()
    if not material:
        display = mesh.GetDisplayColorAttr().Get()
        red, green, blue = (float(value) for value in (display[0] if display else (GREY,) * 3))
        return Look("", (red, green, blue))
    name = str(material.GetPrim().GetName())
    surface = material.ComputeSurfaceSource()[0]
    given = surface.GetInput("diffuseColor") if surface else None
    if not given:
        return Look(name, (GREY,) * 3)
    if not given.HasConnectedSource():
        value = given.Get()
        red, green, blue = (float(entry) for entry in (value if isinstance(value, Gf.Vec3f) else (GREY,) * 3))
        return Look(name, (red, green, blue))
    reader = UsdShade.Shader(given.GetConnectedSources()[0][0].source.GetPrim())
    asset = reader.GetInput("file").Get() if reader.GetInput("file") else None
    if asset is None:
        notes.append(f"the colour of {name} is computed by a shader that is not read; it is taken as grey")
        return Look(name, (GREY,) * 3)
    texture, note = texture_of_bytes(_asset_bytes(files, asset), asset.path)
    notes += [note] if note else []
    return Look(name, (1.0, 1.0, 1.0), texture, REPEATED)


def _asset_bytes(files: MeshFiles, asset: object) -> bytes:
    """A picture inside the package, or beside the layer."""
    path, resolved = str(asset.path), str(asset.resolvedPath)  # type: ignore[attr-defined]
    if "[" in resolved:
        opened = Ar.GetResolver().OpenAsset(Ar.ResolvedPath(resolved))
        if opened:
            with opened.GetBuffer() as content:
                return bytes(content)
    return files.named(checked_reference(path, files.name))
