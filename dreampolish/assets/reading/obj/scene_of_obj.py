"""Reading OBJ with its MTL: one part a material, vertices in the order of the file, split only where texture coordinates differ."""

import numpy as np

from dreampolish.assets.reading.images import texture_of_bytes
from dreampolish.assets.reading.obj.wavefront import Material, WavefrontMesh, map_path, parse_mtl, parse_obj, text_of
from dreampolish.assets.reading.scene import Look, MeshError, Part, Scene, check_triangles
from dreampolish.assets.reading.source import MeshFiles

DEFAULT_COLOR = 0.8
"""sRGB grey of faces without a material."""


def read_obj(files: MeshFiles) -> Scene:
    """The parts of an OBJ. Raises MeshError for a damaged text, a missing MTL or picture."""
    text = text_of(files.content)
    check_triangles(text.count("\nf "), files.name)
    try:
        mesh = parse_obj(text)
    except (ValueError, IndexError) as error:
        raise MeshError(f"{files.name} cannot be read: {str(error)[:150]}") from None
    check_triangles(len(mesh.corners), files.name)
    if not np.isfinite(mesh.positions[np.unique(mesh.corners[:, :, 0])]).all():
        raise MeshError(f"{files.name} has coordinates that are not finite numbers")
    notes: list[str] = []
    materials = _materials(files, mesh, notes)
    parts = [
        obj_part(
            mesh,
            number,
            _look(
                files=files,
                name=mesh.material_names[number],
                materials=materials,
                notes=notes,
                has_colors=mesh.colors is not None,
            ),
        )
        for number in np.unique(mesh.material_indices).tolist()
    ]
    return Scene(tuple(parts), up=None, metres_per_unit=None, notes=tuple(dict.fromkeys(notes)))


def _materials(files: MeshFiles, mesh: WavefrontMesh, notes: list[str]) -> dict[str, Material]:
    found: dict[str, Material] = {}
    for name in mesh.material_libraries:
        read = parse_mtl(text_of(files.named(name)))
        twice = sorted(set(found) & set(read))
        notes += [f"two materials are called {twice[0]}; the later one counts"] if twice else []
        found |= read
    return found


def _look(files: MeshFiles, name: str, materials: dict[str, Material], notes: list[str], has_colors: bool) -> Look:
    material = materials.get(name)
    if material is None:
        if name:
            notes.append(f"the material {name} is nowhere defined; it is read as grey")
        plain = 1.0 if has_colors else _linear(DEFAULT_COLOR)
        return Look(name, (plain, plain, plain))
    if material.opacity < 1:
        notes.append(f"{name} is partly transparent; it is worked with as opaque")
    if material.texture is None:
        red, green, blue = (_linear(value) for value in material.diffuse)
        return Look(name, (red, green, blue))
    path = map_path(material.texture)
    texture, note = texture_of_bytes(files.named(path), f"{path}, which {files.name} names,")
    notes += [note] if note else []
    # Exporters write any Kd beside a map; viewers disagree whether it counts, and it is mostly meant for viewers without maps.
    return Look(name, (1.0, 1.0, 1.0), texture)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def obj_part(mesh: WavefrontMesh, number: int, look: Look) -> Part:
    """The faces of one material, each pair of position and texture coordinates one vertex, in the order of first use in the file."""
    chosen = mesh.material_indices == number
    corners = mesh.corners[chosen]
    used = corners.reshape(-1, 3)
    keys, inverse = np.unique(used[:, :2], axis=0, return_inverse=True)
    faces = inverse.reshape(-1, 3)
    uv = None
    if len(mesh.uvs) and (keys[:, 1] >= 0).any():
        given = np.where((keys[:, 1] >= 0)[:, None], mesh.uvs[keys[:, 1]], 0.0)
        uv = np.stack([given[:, 0], 1 - given[:, 1]], axis=1)
    colors = None
    if mesh.colors is not None:
        color = mesh.colors[keys[:, 0]]
        colors = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return Part(
        name=mesh.object_names[int(mesh.object_indices[chosen][0])] or "mesh",
        look=look,
        positions=mesh.positions[keys[:, 0]],
        faces=faces,
        uv=uv,
        normals=_normals(mesh, used, inverse, len(keys)),
        colors=colors,
        origin=(0, number),
        material=number,
    )


def _normals(mesh: WavefrontMesh, used: np.ndarray, inverse: np.ndarray, count: int) -> np.ndarray | None:
    """The mean of the normals at each vertex; None unless every corner has one."""
    if not len(mesh.normals) or (used[:, 2] < 0).any():
        return None
    total = np.zeros((count, 3))
    np.add.at(total, inverse.reshape(-1), mesh.normals[used[:, 2]])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.maximum(length, 1e-12)
