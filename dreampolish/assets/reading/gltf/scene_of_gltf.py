"""Reading glTF 2.0 and GLB: triangles, strips and fans of the scene in place, with their base colours.

What an unread extension would change is not guessed: a file that requires one is refused.
"""

from typing import Any

import numpy as np

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.gltf.looks import Surfaces
from dreampolish.assets.reading.gltf.nodes import Placed, placed_meshes, skin_matrices, skinned, world_matrices
from dreampolish.assets.reading.scene import MeshError, Part, Scene, check_triangles
from dreampolish.assets.reading.source import MeshFiles

READ = (
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "EXT_texture_webp",
    "EXT_mesh_gpu_instancing",
    "KHR_lights_punctual",
    "KHR_node_visibility",
    "KHR_animation_pointer",
    "KHR_xmp_json_ld",
)
"""Required extensions that are read, or that change no shape and no base colour; besides those of materials."""
_REMEDIES = {
    "KHR_draco_mesh_compression": "export it again without Draco compression",
    "EXT_meshopt_compression": "export it again without meshopt compression",
    "KHR_meshopt_compression": "export it again without meshopt compression",
    "KHR_texture_basisu": "export it again with PNG or JPEG textures",
}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_OTHER_MODES = {0: "points", 1: "lines", 2: "lines", 3: "lines"}


def read_gltf(files: MeshFiles) -> Scene:
    """The scene of a .glb or .gltf. Raises MeshError, in one line, for what cannot be read as it is."""
    return scene_of_gltf(GltfData(files))


def scene_of_gltf(data: GltfData) -> Scene:
    """The same of a document that is open."""
    try:
        return _scene(data)
    except MeshError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MeshError(f"{data.name} is damaged: {_fault(error)}") from error


def _fault(error: Exception) -> str:
    """What is wrong with a document, without the words of Python."""
    return (
        f"it lacks {str(error)[:60]}"
        if isinstance(error, KeyError)
        else "a value has another type or size than glTF prescribes"
    )


def _scene(data: GltfData) -> Scene:
    _check_extensions(data)
    surfaces, placed = Surfaces(data), placed_meshes(data)
    parts: list[Part] = []
    skipped: set[str] = set()
    total = 0
    for place in placed:
        for number, primitive in enumerate(data.entry("meshes", place.mesh).get("primitives", [])):
            mode = primitive.get("mode", _TRIANGLES)
            if mode in _OTHER_MODES:
                skipped.add(_OTHER_MODES[mode])
                continue
            total += _triangles(data, primitive, mode)
            check_triangles(total, data.name)
            parts.append(_part(data=data, surfaces=surfaces, place=place, number=number, primitive=primitive))
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        what = (
            f"only {' and '.join(sorted(skipped))}" if skipped else "no mesh" if not data.entries("meshes") else "no triangles"
        )
        lost = "; its meshes are not part of the scene" if data.entries("meshes") and not placed else ""
        raise MeshError(f"{data.name} holds {what}{lost}: give a mesh of triangles")
    left_out = (
        [f"{' and '.join(sorted(skipped))} of {data.name} are left out: only triangles are worked with"] if skipped else []
    )
    notes = (*_notes(data, placed), *left_out, *surfaces.notes)
    return Scene(tuple(parts), up="y", metres_per_unit=1.0, notes=notes)


def _check_extensions(data: GltfData) -> None:
    for name in data.document.get("extensionsRequired", []):
        if name not in READ and not name.startswith("KHR_materials_"):
            remedy = _REMEDIES.get(name, "export it again without")
            raise MeshError(f"{data.name} requires {name}, which is not read; {remedy}")


def _notes(data: GltfData, placed: list[Placed]) -> list[str]:
    notes = []
    if any(place.skin is not None for place in placed):
        notes.append("the mesh is rigged: it is worked with in the pose in which the file has it, without its skeleton")
    if data.entries("animations"):
        notes.append("the file is animated: it is worked with as it stands without the animation")
    return notes


def _triangles(data: GltfData, primitive: dict[str, Any], mode: int) -> int:
    """How many triangles a primitive claims, before anything of it is read."""
    accessor = primitive.get("indices", primitive["attributes"]["POSITION"])
    count = int(data.entry("accessors", accessor)["count"])
    return count // 3 if mode == _TRIANGLES else max(count - 2, 0)


def _part(data: GltfData, surfaces: Surfaces, place: Placed, number: int, primitive: dict[str, Any]) -> Part:
    """A primitive in place; faces turn over where the place mirrors them."""
    attributes, surface = primitive["attributes"], surfaces.of(primitive.get("material"))
    positions, normals = _morphed(data, place, primitive, "POSITION"), None
    if "NORMAL" in attributes:
        normals = _morphed(data, place, primitive, "NORMAL")
    faces = _faces(data, primitive, len(positions))
    positions, normals, linear, mirrored = _in_place(
        data=data, place=place, attributes=attributes, positions=positions, normals=normals
    )
    if not np.isfinite(positions[np.unique(faces)]).all():
        raise MeshError(f"{data.name} has coordinates that are not finite numbers")
    uv = None
    if f"TEXCOORD_{surface.coordinates}" in attributes:
        uv = data.numbers(attributes[f"TEXCOORD_{surface.coordinates}"])[:, :2]
        if surface.transform is not None:
            uv = uv @ surface.transform[:2, :2].T + surface.transform[:2, 2]
    elif surface.look.texture is not None:
        surfaces.notes.append(
            f"{surface.look.name} has a texture and its mesh no texture coordinates: one texel colours it all"
        )
    colors = data.numbers(attributes["COLOR_0"])[:, :3] if "COLOR_0" in attributes else None
    for values in (uv, normals, colors):
        if values is not None and len(values) != len(positions):
            raise MeshError(f"{data.name} has a mesh whose attributes differ in length")
    node, mesh = data.entry("nodes", place.node), data.entry("meshes", place.mesh)
    return Part(
        name=str(mesh.get("name") or node.get("name") or f"mesh {place.mesh}"),
        look=surface.look,
        positions=positions,
        faces=faces[:, ::-1] if mirrored else faces,
        uv=uv,
        normals=normals,
        colors=colors,
        origin=(place.mesh, number),
        material=primitive.get("material"),
        mirrored=mirrored,
        linear=linear,
    )


def _morphed(data: GltfData, place: Placed, primitive: dict[str, Any], key: str) -> np.ndarray:
    """An attribute with the morph targets at the weights that the file has at rest (glTF 2.0, 3.7.2.2)."""
    values = data.numbers(primitive["attributes"][key])
    weights = data.entry("nodes", place.node).get("weights", data.entry("meshes", place.mesh).get("weights", []))
    targets = primitive.get("targets", []) if weights else []
    if len(weights) != len(targets):
        raise MeshError(f"{data.name} has {len(targets)} morph targets with {len(weights)} weights; export it again")
    for weight, target in zip(weights, targets, strict=True):
        if weight and key in target:
            values = values + weight * data.numbers(target[key])
    return values


def _in_place(
    data: GltfData, place: Placed, attributes: dict[str, int], positions: np.ndarray, normals: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, bool]:
    """Positions and unit normals after the node's transform, or the skin's in its place; its linear part; whether faces turn over."""
    if place.skin is not None and "JOINTS_0" in attributes:
        count = 1 + ("JOINTS_1" in attributes)
        joints = np.concatenate([data.raw(attributes[f"JOINTS_{k}"]).astype(np.int64) for k in range(count)], axis=1)
        weights = np.concatenate([data.numbers(attributes[f"WEIGHTS_{k}"]) for k in range(count)], axis=1)
        joint_matrices = skin_matrices(data, place.skin, world_matrices(data))
        matrices = skinned(joint_matrices, joints, weights, data.name)
        moved = np.einsum("vij,vj->vi", matrices[:, :3, :3], positions) + matrices[:, :3, 3]
        turned = None if normals is None else np.einsum("vij,vj->vi", _cofactors(matrices[:, :3, :3]), normals)
        return moved, _unit(turned), matrices[:, :3, :3], bool(np.linalg.det(joint_matrices[0, :3, :3]) < 0)
    linear = place.matrix[:3, :3]
    turned = None if normals is None else normals @ _cofactors(linear[None])[0].T
    return (
        positions @ linear.T + place.matrix[:3, 3],
        _unit(turned),
        linear,
        bool(np.linalg.det(linear / max(np.abs(linear).max(), 1e-300)) < 0),
    )


def _cofactors(matrices: np.ndarray) -> np.ndarray:
    """Matrices that turn normals, as the inverse transpose does, up to a positive factor; also where none is invertible."""
    scaled = matrices / np.maximum(np.abs(matrices).max(axis=(1, 2), keepdims=True), 1e-300)
    rows = [np.cross(scaled[:, (k + 1) % 3], scaled[:, (k + 2) % 3]) for k in range(3)]
    return np.stack(rows, axis=1) * np.where(np.linalg.det(scaled) < 0, -1.0, 1.0)[:, None, None]


def _unit(normals: np.ndarray | None) -> np.ndarray | None:
    if normals is None:
        return None
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)


def _faces(data: GltfData, primitive: dict[str, Any], n_vertices: int) -> np.ndarray:
    """Corners (F, 3) of a primitive of triangles, of a strip or of a fan (glTF 2.0, 3.7.2.1)."""
    corners = data.indices(primitive["indices"]) if "indices" in primitive else np.arange(n_vertices)
    if corners.max(initial=-1) >= n_vertices:
        raise MeshError(f"{data.name} has a face that names vertex {corners.max():,} of {n_vertices:,}")
    mode = primitive.get("mode", _TRIANGLES)
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode not in (_STRIP, _FAN):
        raise MeshError(f"{data.name} has a primitive of the unknown mode {mode}")
    number = np.arange(max(len(corners) - 2, 0))
    if mode == _FAN:
        rows = np.stack([number + 1, number + 2, np.zeros_like(number)], axis=1)
    else:
        odd = number % 2
        rows = np.stack([number, number + 1 + odd, number + 2 - odd], axis=1)
    faces = corners[rows]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return faces[whole]
