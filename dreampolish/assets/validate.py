"""Whether a 3D file is what its format wants: GLB by glTF's schema and by reading it, the others by reading them again."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jsonschema import ValidationError
from trimesh.exchange import gltf

from dreampolish.assets.findings import FileFindings
from dreampolish.assets.writing.usdz import usdz_findings
from dreampolish.scene.untrusted.beside_resolver import BesideResolver
from dreampolish.scene.untrusted.files import MATERIAL_BYTES, MESH_BYTES, RefusedError, beside, read_regular
from dreampolish.scene.untrusted.glb import document_of_glb

FORMATS = ("glb", "obj", "ply", "stl", "usdz")
_MAPS = ("baseColorTexture", "metallicRoughnessTexture", "normalTexture", "occlusionTexture", "emissiveTexture")


def findings_of(path: Path) -> FileFindings:
    """Check a file by the ending of its name.

    Raises ValueError for an ending that is not in FORMATS, for what is no regular file or too large, and OSError for a file that cannot
    be read.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ValueError(f"{path.name} ends in none of {', '.join('.' + entry for entry in FORMATS)}")
    content = read_regular(path, MESH_BYTES)
    match kind:
        case "usdz":
            return usdz_findings(path)
        case "glb":
            return glb_findings(content)
        case _:
            return _reread(path, kind, content)


def glb_findings(content: bytes) -> FileFindings:
    """Errors and triangles of a GLB's bytes: its JSON against glTF 2.0's schema, its data by reading them.

    The least of several schema errors is told. Bounds, unit lengths and extensions are the Khronos validator's business.
    """
    checker = "trimesh's glTF schema"
    try:
        document = document_of_glb(content)
        if document["asset"]["version"] != "2.0":
            raise ValueError("asset.version is not 2.0")
        gltf.validate(document)
        scene = trimesh.load_scene(io.BytesIO(content), file_type="glb", process=False)
    except RefusedError as error:
        return FileFindings(checker, (f"refused: {error}",))
    except ValidationError as error:
        return FileFindings(checker, (f"{error.message} ({error.json_path})",))
    except Exception as error:
        # A reader of damaged files raises anything at all.
        return FileFindings(checker, (f"cannot be read: {type(error).__name__} {error}".strip(),))
    placed = [scene.geometry[scene.graph[node][1]] for node in scene.graph.nodes_geometry]
    parts = [part for part in placed if isinstance(part, trimesh.Trimesh)]
    errors = [error for part in parts for error in _mesh_errors(part)] if parts else ["holds no triangles"]
    errors += [f"{name} cannot be read" for name in sorted(_named_maps(document) - _read_maps(parts))]
    return FileFindings(checker, tuple(errors), (), {"triangles": float(sum(len(part.faces) for part in parts))})


def _named_maps(document: dict[str, Any]) -> set[str]:
    """The kinds of map that materials name."""
    materials = document.get("materials", [])
    entries = [name for material in materials for name in (*material, *material.get("pbrMetallicRoughness", ()))]
    return {name for name in entries if name in _MAPS}


def _read_maps(parts: list[trimesh.Trimesh]) -> set[str]:
    """The kinds of map that were read."""
    materials = [getattr(part.visual, "material", None) for part in parts]
    return {name for material in materials for name in _MAPS if getattr(material, name, None) is not None}


def _reread(path: Path, kind: str, content: bytes) -> FileFindings:
    """What trimesh finds in a file, with the pictures and libraries it names."""
    errors = list(_truncated_stl(content)) if kind == "stl" else []
    resolver = BesideResolver(path.parent)
    try:
        mesh = trimesh.load_mesh(io.BytesIO(content), file_type=kind, resolver=resolver, process=False)
    except Exception as error:
        # A reader of damaged files raises anything at all.
        return FileFindings("trimesh", (f"cannot be read: {error or type(error).__name__}",))
    if resolver.refused:
        return FileFindings("trimesh", tuple(f"refused: {line}" for line in resolver.refused))
    if not len(getattr(mesh, "faces", ())):
        return FileFindings("trimesh", (*errors, "holds no triangles"))
    errors += _mesh_errors(mesh)
    if kind == "obj":
        errors += [f"{missing} is named but not there" for missing in _missing_of_obj(path.parent, content)]
    longest = float(np.ptp(mesh.vertices, axis=0).max()) if not errors else 0.0
    return FileFindings("trimesh", tuple(errors), (), {"triangles": float(len(mesh.faces)), "longest_side": longest})


def _mesh_errors(mesh: trimesh.Trimesh) -> Iterator[str]:
    if not np.isfinite(mesh.vertices).all():
        yield "a coordinate is not finite"
    if mesh.faces.max(initial=0) >= len(mesh.vertices) or mesh.faces.min(initial=0) < 0:
        yield "a face names a vertex that is not there"


def _truncated_stl(content: bytes) -> list[str]:
    """A binary STL's length follows from its count."""
    if content[:5] == b"solid" and b"facet" in content[:1000]:
        return []
    if len(content) < 84:
        return ["is shorter than an STL's header"]
    expected = 84 + 50 * int.from_bytes(content[80:84], "little")
    return [] if len(content) == expected else [f"has {len(content)} bytes, its count of faces says {expected}"]


def _missing_of_obj(folder: Path, content: bytes) -> list[str]:
    """Material libraries and pictures that an OBJ names and that do not lie beside it."""
    missing = []
    for library in _named(folder, content, ("mtllib",)):
        if not library.is_file():
            missing.append(library.name)
            continue
        pictures = _named(folder, read_regular(library, MATERIAL_BYTES), ("map_Kd", "norm", "map_Bump"))
        missing += [picture.name for picture in pictures if not picture.is_file()]
    return missing


def _named(folder: Path, content: bytes, keywords: tuple[str, ...]) -> list[Path]:
    """Where the files lie that lines with these first words name last. Raises RefusedError for one outside the folder."""
    lines = (line.split() for line in content.decode(errors="replace").splitlines())
    return [beside(folder, words[-1]) for words in lines if len(words) > 1 and words[0] in keywords]
