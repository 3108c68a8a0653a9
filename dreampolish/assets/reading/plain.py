"""Reading PLY, STL and OFF by trimesh: one part, vertices and faces as they stand in the file."""

import io
from typing import Any

import numpy as np

from dreampolish.assets.reading.images import texture_of_bytes
from dreampolish.assets.reading.scene import Look, MeshError, Part, Scene, check_triangles
from dreampolish.assets.reading.source import MeshFiles

STL_HEADER, STL_FACE = 84, 50


def read_plain(files: MeshFiles) -> Scene:
    """The mesh of a .ply, .stl or .off, with vertex colours or the texture that a PLY names. Raises MeshError."""
    import trimesh  # as long an import as torch's, for three kinds of file

    _check_size(files)
    try:
        mesh = trimesh.load_mesh(io.BytesIO(files.content), file_type=files.kind, process=False)
    except Exception as error:
        # A reader of damaged files raises anything at all.
        raise MeshError(f"{files.name} cannot be read: {type(error).__name__} {str(error)[:120]}") from None
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        what = "only points" if files.kind == "ply" else "no triangles"
        raise MeshError(f"{files.name} holds {what}: give a mesh of triangles")
    check_triangles(len(mesh.faces), files.name)
    positions, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(positions):
        raise MeshError(f"{files.name} has a face that names vertex {faces.max():,} of {len(positions):,}")
    if not np.isfinite(positions[np.unique(faces)]).all():
        raise MeshError(f"{files.name} has coordinates that are not finite numbers")
    uv = getattr(mesh.visual, "uv", None)
    texture, note = _ply_texture(files) if files.kind == "ply" and uv is not None else (None, None)
    colors, lost = _colors(mesh, files)
    return Scene(
        parts=(
            Part(
                name=files.name.rpartition(".")[0],
                look=Look("", (1.0, 1.0, 1.0) if texture is not None or colors is not None else (0.6, 0.6, 0.6), texture),
                positions=positions,
                faces=faces,
                uv=None if uv is None else np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float64),
                normals=None,
                colors=colors,
                material=0,
            ),
        ),
        up=None,
        metres_per_unit=None,
        notes=tuple(said for said in (note, lost) if said),
    )


def _check_size(files: MeshFiles) -> None:
    """Refuse what claims more than it holds, or more than fits, before it is parsed."""
    content = files.content
    if files.kind == "stl" and not (content[:5] == b"solid" and b"facet" in content[:1000]):
        count = int.from_bytes(content[80:84], "little")
        if len(content) < STL_HEADER + STL_FACE * count:
            raise MeshError(f"{files.name} claims {count:,} triangles and has {len(content):,} bytes: it is cut off")
        check_triangles(count, files.name)
    if files.kind == "ply":
        head = content[: content.find(b"end_header")].split(b"\n")
        if head[0].strip() == b"ply" and not any(
            line.split()[:2] in ([b"element", b"face"], [b"element", b"tristrips"]) for line in head
        ):
            raise MeshError(f"{files.name} holds only points: give a mesh of triangles")
        for words in (line.split() for line in head if line.startswith(b"element")):
            if len(words) > 2 and words[1] == b"face" and words[2].isdigit():
                check_triangles(int(words[2]), files.name)
            if len(words) > 2 and words[2].isdigit() and int(words[2]) > len(content):
                raise MeshError(f"{files.name} claims {int(words[2]):,} entries and has {len(content):,} bytes: it is cut off")


COLOR_NAMES = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
"""What writers call a vertex's colours in a PLY."""


def _colors(mesh: Any, files: MeshFiles) -> tuple[np.ndarray | None, str | None]:
    """Linear RGB of the vertices, where the file has colours, taken as sRGB, as scanners write them; and what is said of others."""
    found, of_faces = None, mesh.visual.kind == "face"
    if files.kind == "ply":
        found = _ply_colors(mesh.metadata["_ply_raw"]["vertex"].get("data"))
    elif files.kind == "off":
        found, of_faces = _off_colors(files.content.decode("ascii", "replace"), len(mesh.vertices))
    lost = (
        f"{files.name} has colours of faces, which are not read; colours of vertices are"
        if of_faces and found is None
        else None
    )
    if found is None:
        return None, lost
    color = np.clip(found, 0, 1)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4), None


def _ply_colors(columns: Any) -> np.ndarray | None:
    """Colours 0..1 of any type of number: whole ones are shares of the largest, others lie in 0..1 or, beyond, in 0..255."""
    named = columns.dtype.names if isinstance(columns, np.ndarray) else None
    known = columns.keys() if isinstance(columns, dict) else named or ()
    names = next((each for each in COLOR_NAMES if set(each) <= set(known)), None)
    if names is None:
        return None
    color = np.stack([np.asarray(columns[name]).reshape(-1) for name in names], axis=1)
    if np.issubdtype(color.dtype, np.integer):
        return np.asarray(color / np.iinfo(color.dtype).max, np.float64)
    return _shares(color.astype(np.float64))


def _off_colors(text: str, count: int) -> tuple[np.ndarray | None, bool]:
    """Colours 0..1 of the vertices of a COFF, or None; and whether faces have some."""
    lines = [words for words in (line.partition("#")[0].split() for line in text.splitlines()) if words]
    body = lines[1 if len(lines[0]) > 1 else 2 :]
    of_faces = any(words[0].isdigit() and len(words) > int(words[0]) + 1 for words in body[count:])
    if not lines[0][0].upper().startswith("COFF") or any(len(words) < 6 for words in body[:count]):
        return None, of_faces
    return _shares(np.array([[float(word) for word in words[3:6]] for words in body[:count]])), of_faces


def _shares(color: np.ndarray) -> np.ndarray:
    """Colours in 0..255 as shares; those in 0..1 as they are."""
    return color / 255 if color.max(initial=0) > 1 else color


def _ply_texture(files: MeshFiles) -> tuple[np.ndarray | None, str | None]:
    """The picture that a PLY's comment names (`comment TextureFile picture.png`)."""
    head = files.content[: files.content.find(b"end_header")].decode("ascii", "replace")
    named = [line.split(None, 2)[2].strip() for line in head.splitlines() if line.lower().startswith("comment texturefile ")]
    return texture_of_bytes(files.named(named[0]), named[0]) if named else (None, None)
