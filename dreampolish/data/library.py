"""The five model libraries of Debian's `sweethome3d-furniture` 1.8-1: what they list and the models themselves.

The folder that every function takes is made by `apt-get download sweethome3d-furniture` and
`dpkg -x sweethome3d-furniture_1.8-1_all.deb FOLDER`; it is FOLDER/usr/share/sweethome3d/furniture. The .deb's sha256 is
3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668. The libraries are zip archives of a property list and
OBJ models (y up, front on +z), which leave this module in our world frame (z up, front on +x; docs/conventions.md).
"""

import io
import posixpath
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from dreampolish.assets.reading.obj.wavefront import Material, WavefrontMesh, parse_mtl, parse_obj

BOUNDING_RADIUS = 0.6
"""Radius, world units, of the sphere that holds every normalised object."""

GLASS_GREY = 0.82
"""The grey that shows through transparent materials. [choice]"""

LEAST_OPACITY = 0.03
"""Faces of a material less opaque than this are left out. [choice]"""

CREASE_DEG = 40.0
"""Angle between faces up to which their normals are smoothed, degrees. [choice]"""

STATED_NORMAL_DEG = 30
"""Largest angle between a file's normal and the face's own at which it counts, degrees. [choice]"""

_LICENCES = {"BlendSwap-CC-0": "CC0-1.0", "KatorLegaz": "CC-BY-3.0-US", "Reallusion": "CC-BY-3.0-US"}


@dataclass(frozen=True)
class CatalogEntry:
    """One model of a library. size_m: width (right to left), depth (front to back), height, metres."""

    identifier: str
    name: str
    tags: tuple[str, ...]
    category: str
    licence: str
    creator: str
    size_m: tuple[float, float, float]
    rotation: tuple[float, ...] | None
    library: str
    model_path: str


@dataclass(frozen=True)
class PaintedMesh:
    """A normalised object in the world frame, triangle corners unshared.

    vertices (V, 3); faces (F, 3); corner_normals (F, 3, 3) unit; corner_uvs (F, 3, 2); face_paints (F,): index of the paint of
    each face; colors (M, 3) in [0, 1]; opacities (M,); textures: per paint an (h, w, 4) uint8 picture, row 0 on top, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_normals: np.ndarray
    corner_uvs: np.ndarray
    face_paints: np.ndarray
    colors: np.ndarray
    opacities: np.ndarray
    textures: tuple[np.ndarray | None, ...]


def read_catalog(folder: Path) -> list[CatalogEntry]:
    """Every model that the libraries in `folder` list, in the order of the files and their property lists.

    Raises FileNotFoundError when the folder holds no .sh3f library.
    """
    paths = sorted(folder.glob("*.sh3f"))
    if not paths:
        raise FileNotFoundError(f"no .sh3f library in {folder}: unpack the package sweethome3d-furniture there")
    entries: list[CatalogEntry] = []
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
        entries += [_entry(path.stem, fields) for fields in _numbered_properties(text)]
    return entries


def _numbered_properties(text: str) -> list[dict[str, str]]:
    """The `key#number=value` lines of a property list, grouped by number; java escapes are resolved."""
    groups: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*?)\r?$", text, flags=re.MULTILINE):
        plain = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), value)
        groups.setdefault(int(number), {})[key] = plain.strip()
    return [groups[number] for number in sorted(groups)]


def _entry(library: str, fields: dict[str, str]) -> CatalogEntry:
    """A catalogue entry from the properties of one number."""
    rotation = tuple(float(x) for x in fields["modelRotation"].split()) if "modelRotation" in fields else None
    return CatalogEntry(
        identifier=fields["id"],
        name=fields["name"],
        tags=tuple(tag.strip() for tag in fields["tags"].split(",") if tag.strip()),
        category=fields["category"],
        licence=_LICENCES.get(library, "CC-BY-3.0"),
        creator=fields.get("creator", ""),
        size_m=(float(fields["width"]) / 100, float(fields["depth"]) / 100, float(fields["height"]) / 100),
        rotation=rotation,
        library=library,
        model_path=fields["model"].lstrip("/"),
    )


def entry_from_fields(fields: dict[str, Any]) -> CatalogEntry:
    """A catalogue entry from its JSON form (dataclasses.asdict), where tuples have become lists."""
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return CatalogEntry(**known)


def load_model(entry: CatalogEntry, folder: Path, sample_size: float) -> PaintedMesh:
    """Read one model, bring it into the world frame and normalise it: box centre at the origin, radius BOUNDING_RADIUS.

    sample_size: world units between two samples of the pictures to come; textures finer than that are averaged down, so that
    point sampling does not alias. Raises ValueError for a model without faces or without extent.
    """
    with zipfile.ZipFile(folder / f"{entry.library}.sh3f") as archive:
        members = {name.lower(): name for name in archive.namelist()}
        base = posixpath.dirname(entry.model_path)

        def read(relative: str) -> bytes | None:
            wanted = posixpath.normpath(posixpath.join(base, relative.replace("\\", "/"))).lower()
            return archive.read(members[wanted]) if wanted in members else None

        mesh = parse_obj(archive.read(entry.model_path).decode("latin-1"))
        materials: dict[str, Material] = {}
        for name in mesh.material_libraries:
            content = read(name)
            materials |= parse_mtl(content.decode("latin-1")) if content else {}
        pictures = {m.texture: _read_texture(read, m.texture) for m in materials.values() if m.texture}
    return _painted(mesh=mesh, materials=materials, pictures=pictures, entry=entry, sample_size=sample_size)


def stretched(mesh: PaintedMesh, factors: tuple[float, float, float]) -> PaintedMesh:
    """A mesh stretched along world x, y, z and normalised anew; its colours and textures stay."""
    scale = np.array(factors)
    positions = mesh.vertices.astype(np.float64) * scale
    used = positions[np.unique(mesh.faces)]
    centred = positions - (used.min(axis=0) + used.max(axis=0)) / 2
    radius = np.linalg.norm(centred[np.unique(mesh.faces)], axis=1).max()
    normals = mesh.corner_normals / scale
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    vertices = (centred * (BOUNDING_RADIUS / radius)).astype(np.float32)
    return replace(mesh, vertices=vertices, corner_normals=normals.astype(np.float32))


def _read_texture(read: Callable[[str], bytes | None], path: str) -> np.ndarray | None:
    """An (h, w, 4) uint8 picture, or None when it is missing or unreadable."""
    content = read(path) or read(path.split()[-1])
    if content is None:
        return None
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture.convert("RGBA"))
    except OSError:
        return None


def _model_rotation(entry: CatalogEntry) -> np.ndarray:
    """The catalogue's rotation of a model, (3, 3); identity when it names none."""
    return np.eye(3) if entry.rotation is None else np.array(entry.rotation).reshape(3, 3)


WORLD_FROM_MODEL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""world (x, y, z) = model (z, x, y): the inverse of the glTF axes of docs/conventions.md, which the libraries share."""


def _world_from_file(mesh: WavefrontMesh, entry: CatalogEntry) -> tuple[np.ndarray, np.ndarray]:
    """Positions and unit normals, rotated, stretched to the catalogue's size, in the world frame, centred and scaled."""
    positions, corners = mesh.positions, mesh.corners
    turned = positions @ _model_rotation(entry).T
    used = turned[np.unique(corners[:, :, 0])]
    low, high = used.min(axis=0), used.max(axis=0)
    extent = high - low
    if not np.isfinite(extent).all() or extent.max() <= 0:
        raise ValueError(f"{entry.identifier} has no extent")
    width, depth, height = entry.size_m
    stretch = np.where(extent > 1e-9 * extent.max(), np.array([width, height, depth]) / np.maximum(extent, 1e-30), 1.0)
    centred = (turned - (low + high) / 2) * stretch
    radius = np.linalg.norm(centred[np.unique(corners[:, :, 0])], axis=1).max()
    normals = (mesh.normals @ _model_rotation(entry).T / stretch) @ WORLD_FROM_MODEL.T
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return (centred * (BOUNDING_RADIUS / radius)) @ WORLD_FROM_MODEL.T, normals


def _painted(
    mesh: WavefrontMesh,
    materials: dict[str, Material],
    pictures: dict[str, np.ndarray | None],
    entry: CatalogEntry,
    sample_size: float,
) -> PaintedMesh:
    """Join the parts; materials that look the same become one paint, invisible and degenerate faces go."""
    positions, file_normals = _world_from_file(mesh, entry)
    unknown = Material((0.8, 0.8, 0.8), 1.0, None)
    chosen = [materials.get(name, unknown) for name in mesh.material_names]
    looks = [(m.texture if pictures.get(m.texture or "") is not None else m.diffuse, round(m.opacity, 1)) for m in chosen]
    paints = list(dict.fromkeys(looks))
    paint_of_material = np.array([paints.index(look) for look in looks])
    first = [chosen[looks.index(paint)] for paint in paints]

    faces, face_paints = mesh.corners[:, :, 0], paint_of_material[mesh.material_indices]
    triangles = positions[faces]
    doubled = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(doubled, axis=1) / 2
    opacities = np.array([m.opacity for m in first])
    kept = (area > 1e-12) & (opacities[face_paints] > LEAST_OPACITY)
    if not kept.any():
        raise ValueError("no visible face")
    corners, faces, face_paints = mesh.corners[kept], faces[kept], face_paints[kept]
    uvs = np.zeros((len(faces), 3, 2))
    if len(mesh.uvs):
        uvs = np.where((corners[:, :, 1] >= 0)[..., None], mesh.uvs[corners[:, :, 1]], 0.0)
    textures = tuple(
        _prefiltered(pictures.get(m.texture or ""), uvs[face_paints == i], area[kept][face_paints == i], sample_size)
        for i, m in enumerate(first)
    )
    normals = _corner_normals(positions, faces, doubled[kept], crease_deg=CREASE_DEG)
    if len(file_normals):
        # Files smooth hard edges as well; a stated normal counts only near the face's own, on either side of it.
        stated = file_normals[corners[:, :, 2]]
        face_normals = doubled[kept] / np.linalg.norm(doubled[kept], axis=1, keepdims=True)
        near = np.abs((stated * face_normals[:, None]).sum(axis=-1)) > np.cos(np.radians(STATED_NORMAL_DEG))
        normals = np.where(((corners[:, :, 2] >= 0) & near)[..., None], stated, normals)
    return PaintedMesh(
        vertices=positions.astype(np.float32),
        faces=faces,
        corner_normals=normals.astype(np.float32),
        corner_uvs=uvs.astype(np.float32),
        face_paints=face_paints,
        colors=np.array([m.diffuse for m in first], dtype=np.float32),
        opacities=opacities.astype(np.float32),
        textures=textures,
    )


def _prefiltered(picture: np.ndarray | None, uvs: np.ndarray, area: np.ndarray, sample_size: float) -> np.ndarray | None:
    """The texture averaged down until its texels are about `sample_size` world units on the faces that carry it."""
    if picture is None or len(uvs) == 0:
        return picture
    edges = uvs[:, 1:] - uvs[:, :1]
    uv_area = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]).sum() / 2
    height, width = picture.shape[:2]
    texel = np.sqrt(area.sum() / max(uv_area * width * height, 1e-12))
    shrink = min(max(sample_size / max(texel, 1e-9), 1.0), min(width, height) / 2)
    size = (max(round(width / shrink), 1), max(round(height / shrink), 1))
    return picture if shrink <= 1 else np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _corner_normals(positions: np.ndarray, faces: np.ndarray, doubled: np.ndarray, crease_deg: float) -> np.ndarray:
    """Unit normals (F, 3, 3): at each corner the area-weighted mean over the faces that meet there at less than the crease angle.

    doubled: (F, 3) face normals of twice the faces' area. Computed from the triangles, since half of the files carry no normals.
    """
    face_normals = doubled / np.linalg.norm(doubled, axis=1, keepdims=True)
    _, shared = np.unique(np.round(positions, 5), axis=0, return_inverse=True)
    corner_vertex = shared.reshape(-1)[faces].reshape(-1)
    n = len(corner_vertex)
    incidence = csr_array((np.ones(n, np.int8), (np.arange(n), corner_vertex)), shape=(n, len(positions)))
    pairs = (incidence @ incidence.T).tocoo()
    own, other = pairs.row, pairs.col // 3
    smooth = (face_normals[own // 3] * face_normals[other]).sum(axis=1) > np.cos(np.radians(crease_deg))
    own, other = own[smooth], other[smooth]
    sums = np.stack([np.bincount(own, doubled[other, axis], minlength=n) for axis in range(3)], axis=1)
    return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).reshape(-1, 3, 3)
