"""USDZ against its specification: the archive's layout by reading it, the stage by usd-core's own validators."""

import struct
import zipfile
from pathlib import Path

from pxr import Tf, Usd, UsdGeom, UsdValidation

from dreampolish.mesh.validate_glb import Told

ALIGNMENT = 64
_LOCAL_HEADER = 30


def usdz_findings(path: Path) -> Told:
    """Errors, warnings and figures. A stage that usd-core cannot open is an error; so are compressed or unaligned files."""
    errors = _layout_errors(path)
    if errors:
        return tuple(errors), (), {}
    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as error:
        return (f"usd-core cannot open it: {str(error).strip().splitlines()[-1]}",), (), {}
    meshes = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    if not meshes:
        return ("holds no mesh",), (), {}
    warnings = [] if stage.GetDefaultPrim() else ["names no default prim"]
    told = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators()).Validate(stage)
    for entry in told:
        text = f"{entry.GetName()}: {entry.GetMessage()}"
        (errors if entry.GetType() == UsdValidation.ValidationErrorType.Error else warnings).append(text)
    for mesh in meshes:
        complaint = _mesh_error(mesh)
        errors += [complaint] if complaint else []
    triangles = sum(sum(count - 2 for count in mesh.GetFaceVertexCountsAttr().Get() or ()) for mesh in meshes)
    return (
        tuple(errors),
        tuple(warnings),
        {"triangles": float(triangles), "metres_per_unit": UsdGeom.GetStageMetersPerUnit(stage)},
    )


def _mesh_error(mesh: UsdGeom.Mesh) -> str:
    counts, corners = mesh.GetFaceVertexCountsAttr().Get(), mesh.GetFaceVertexIndicesAttr().Get()
    points = mesh.GetPointsAttr().Get()
    if not counts or not corners or not points:
        return f"{mesh.GetPath()} is empty"
    valid, why = UsdGeom.Mesh.ValidateTopology(corners, counts, len(points))
    return "" if valid else f"{mesh.GetPath()}: {why}"


def _layout_errors(path: Path) -> list[str]:
    """A USDZ is a ZIP without compression or encryption, its first file a USD layer, every file's bytes at a multiple of 64."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = archive.infolist()
            errors = (
                [] if entries and entries[0].filename.endswith((".usdc", ".usda", ".usd")) else ["does not begin with a layer"]
            )
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    errors.append(f"{entry.filename} is compressed or encrypted")
                file.seek(entry.header_offset + _LOCAL_HEADER - 4)
                name, extra = struct.unpack("<HH", file.read(4))
                start = entry.header_offset + _LOCAL_HEADER + name + extra
                if start % ALIGNMENT:
                    errors.append(f"{entry.filename} starts at byte {start}, no multiple of {ALIGNMENT}")
            damaged = archive.testzip()
            return [*errors, *([f"{damaged} is damaged"] if damaged else [])]
    except (zipfile.BadZipFile, OSError, struct.error) as error:
        return [f"is no readable ZIP: {error}"]
