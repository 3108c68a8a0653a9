"""A glTF document with new base colours: bytes are only appended, and only what shows the new picture is changed.

Buffers keep their bytes and their order, so that accessors of untouched data read the same; names, nodes, skins, animations, extensions
and other materials stay. Where coordinates are new, a primitive gets accessors with its vertices in their order and, behind them,
those that a seam of the picture doubles.
"""

import copy
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.gltf.looks import color_slot
from dreampolish.assets.reading.images import png_of_texture
from dreampolish.assets.reading.scene import Part, Scene
from dreampolish.assets.reading.source import MeshFiles

_FLOAT, _UINT32 = 5126, 5125
_WIDTHS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_WRAPS = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
_MIME = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class Paint:
    """A material's new picture as a PNG's or JPEG's bytes.

    corners: where coordinates are new, by (mesh, primitive): the faces (F, 3) as the primitive numbers its vertices, and the corners'
    coordinates (F, 3, 2).
    """

    material: int | None
    picture: bytes
    corners: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]]


class Growing:
    """A copy of a document whose binary part grows."""

    def __init__(self, data: GltfData) -> None:
        self.data, self.document = data, copy.deepcopy(data.document)
        self.binary = bytearray()
        self._join_buffers()

    def _join_buffers(self) -> None:
        """All buffers one behind the other in the GLB's own; pictures beside the file move in."""
        starts = []
        for index in range(len(self.data.entries("buffers"))):
            starts.append(len(self.binary))
            self.binary += self.data.buffer(index)
            self.binary += b"\0" * (-len(self.binary) % 4)
        for view in self.document.get("bufferViews", []):
            moved = starts[view["buffer"]]
            if moved:
                view["byteOffset"] = view.get("byteOffset", 0) + moved
            view["buffer"] = 0
        for image in self.document.get("images", []):
            if "uri" in image:
                content = self.data.bytes_of_uri(image.pop("uri"))
                image["bufferView"] = self.view(content)
                image.setdefault(
                    "mimeType", next((kind for head, kind in _MIME.items() if content.startswith(head)), "image/png")
                )

    def view(self, content: bytes) -> int:
        """Append bytes; the new view's number."""
        views = self.document.setdefault("bufferViews", [])
        views.append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)})
        self.binary += content + b"\0" * (-len(content) % 4)
        return len(views) - 1

    def accessor(self, values: np.ndarray, like: Mapping[str, Any]) -> int:
        """Append an array (n, width), described as `like` is; the new accessor's number."""
        width = values.dtype.itemsize * values.shape[1]
        padded = np.zeros((len(values), width + -width % 4), np.uint8)
        padded[:, :width] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
        kept = {key: value for key, value in like.items() if key in ("componentType", "normalized", "type", "name")}
        entry = {**kept, "bufferView": self.view(padded.tobytes()), "count": len(values)}
        if width % 4:
            self.document["bufferViews"][-1]["byteStride"] = padded.shape[1]
        if "min" in like:
            entry |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.document.setdefault("accessors", []).append(entry)
        return len(self.document["accessors"]) - 1

    def glb(self) -> bytes:
        """The file."""
        self.document["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(self.document, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        head = struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary))
        return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def repainted_glb(
    data: GltfData, paints: Sequence[Paint], extras: Mapping[str, Any], change: Callable[[Growing], None] | None
) -> bytes:
    """The document as a GLB with new pictures in its materials. extras: joins `asset.extras` under "dreampolish".

    change: what else is done to it before.
    """
    growing = Growing(data)
    if change is not None:
        change(growing)
    asset = growing.document["asset"]
    asset["extras"] = {**(asset.get("extras") if isinstance(asset.get("extras"), dict) else {}), "dreampolish": dict(extras)}
    for paint in paints:
        _paint(growing, paint)
    return growing.glb()


def _paint(growing: Growing, paint: Paint) -> None:
    document = growing.document
    mime = next(kind for head, kind in _MIME.items() if paint.picture.startswith(head))
    images, textures = document.setdefault("images", []), document.setdefault("textures", [])
    images.append({"bufferView": growing.view(paint.picture), "mimeType": mime})
    textures.append({"source": len(images) - 1})
    material = paint.material
    if material is None:
        document.setdefault("materials", []).append({"name": "painted", "pbrMetallicRoughness": {"metallicFactor": 0.0}})
        material = len(document["materials"]) - 1
    _show(document, document["materials"][material], len(textures) - 1, keeps_place=not paint.corners)
    for mesh in document.get("meshes", []):
        for primitive in mesh["primitives"]:
            if primitive.get("material") == paint.material:
                primitive["material"] = material
                if "COLOR_0" in primitive["attributes"]:
                    # The picture holds these colours; under another name they stay in the file and do not count twice.
                    primitive["attributes"]["_COLOR_0"] = primitive["attributes"].pop("COLOR_0")
    for (mesh, number), (faces, uv) in paint.corners.items():
        _with_new_coordinates(growing, document["meshes"][mesh]["primitives"][number], faces, uv)


def _show(document: dict[str, Any], material: dict[str, Any], texture: int, *, keeps_place: bool) -> None:
    """Put a texture where the material has its base colour, its factor white. keeps_place: the entry's coordinates and transform stay."""
    slot, color, named = color_slot(material)
    if max(color) == 0 and "emissiveTexture" in material:
        slot, named = ("emissiveTexture",), material["emissiveTexture"]
    elif max(color) == 0 and max(material.get("emissiveFactor", (0,))) > 0:
        material["emissiveFactor"] = [0, 0, 0]
    place = material
    for key in slot[:-1]:
        place = place.setdefault(key, {})
    entry: dict[str, Any] = {"index": texture}
    if keeps_place and named is not None:
        entry |= {key: value for key, value in named.items() if key != "index"}
        sampler = document["textures"][named["index"]].get("sampler")
        if sampler is not None:
            document["textures"][texture]["sampler"] = sampler
    place[slot[-1]] = entry
    for key in ("baseColorFactor", "diffuseFactor"):
        if key in place:
            place[key] = [1, 1, 1, *place[key][3:]]


def _with_new_coordinates(growing: Growing, primitive: dict[str, Any], faces: np.ndarray, uv: np.ndarray) -> None:
    """Give a primitive's corners their own coordinates; vertices on a seam are doubled behind the others."""
    attributes = primitive["attributes"]
    count = int(growing.document["accessors"][attributes["POSITION"]]["count"])
    rows, coordinates, corners = doubled_at_seams(count, faces, uv)
    for holder in (attributes, *primitive.get("targets", [])):
        for key, number in holder.items():
            if len(rows) > count:
                like = growing.document["accessors"][number]
                holder[key] = growing.accessor(growing.data.raw(number)[rows], like)
    like = {"componentType": _FLOAT, "type": "VEC2"}
    others = [key for key in attributes if key.startswith("TEXCOORD_") and key != "TEXCOORD_0"]
    if "TEXCOORD_0" in attributes:
        # Other maps of the material may read them.
        attributes[f"TEXCOORD_{len(others) + 1}"] = attributes["TEXCOORD_0"]
        _read_from(growing.document, primitive, len(others) + 1)
    attributes["TEXCOORD_0"] = growing.accessor(coordinates.astype(np.float32), like)
    scalar = {"componentType": _UINT32, "type": "SCALAR"}
    primitive["indices"] = growing.accessor(corners.reshape(-1, 1).astype(np.uint32), scalar)
    primitive["mode"] = 4


def _read_from(document: dict[str, Any], primitive: dict[str, Any], coordinates: int) -> None:
    """Let the material's other maps read the coordinates that they read before."""
    material = document["materials"][primitive["material"]]
    for name, entry in material.items():
        if name.endswith("Texture") and isinstance(entry, dict) and entry.get("texCoord", 0) == 0:
            entry["texCoord"] = coordinates
    entry = material.get("pbrMetallicRoughness", {}).get("metallicRoughnessTexture")
    if entry is not None and entry.get("texCoord", 0) == 0:
        entry["texCoord"] = coordinates


def doubled_at_seams(count: int, faces: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices of a mesh whose corners have coordinates of their own.

    Returns the old number of each vertex, the first `count` of them as they were, (n,); their coordinates (n, 2); the faces (F, 3).
    """
    corner, place = faces.reshape(-1), np.ascontiguousarray(uv.reshape(-1, 2), dtype=np.float32)
    keys = np.concatenate([corner[:, None].astype(np.int64), place.view(np.int32).astype(np.int64)], axis=1)
    pairs, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    vertex = pairs[:, 0]
    # np.unique sorts by vertex first: the first pair of each keeps its number, the others go behind.
    leads = np.concatenate([[True], vertex[1:] != vertex[:-1]])
    number = np.where(leads, vertex, 0)
    number[~leads] = count + np.arange((~leads).sum())
    rows = np.concatenate([np.arange(count), vertex[~leads]])
    coordinates = np.zeros((len(rows), 2), np.float32)
    coordinates[number] = place[first]
    return rows, coordinates, number[inverse.reshape(-1)].reshape(-1, 3)


def gltf_of_scene(scene: Scene, up: str, metres_per_unit: float, name: str) -> GltfData:
    """A glTF document of parts from another format: their vertices, coordinates and faces in their order, one node turned upright."""
    growing = Growing(GltfData(MeshFiles("empty.gltf", b'{"asset": {"version": "2.0", "generator": "DreamPolish"}}', None)))
    primitives = [_primitive(growing, part) for part in scene.parts]
    names: dict[int | None, str] = {part.material: part.look.name for part in scene.parts}
    numbers = {material: number for number, material in enumerate(names)}
    for primitive, part in zip(primitives, scene.parts, strict=True):
        primitive["material"] = numbers[part.material]
    growing.document |= {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0, **_upright(up, metres_per_unit)}],
        "meshes": [{"name": name, "primitives": primitives}],
        "materials": [
            {"name": names[material], "doubleSided": True, **_plain(growing, scene, material)} for material in numbers
        ],
    }
    return GltfData(MeshFiles(f"{name}.glb", growing.glb(), None))


def _primitive(growing: Growing, part: Part) -> dict[str, Any]:
    position = part.positions.astype(np.float32)
    bounds = {"min": 0, "max": 0}
    attributes = {"POSITION": growing.accessor(position, {"componentType": _FLOAT, "type": "VEC3", **bounds})}
    for key, values in (("NORMAL", part.normals), ("TEXCOORD_0", part.uv), ("COLOR_0", part.colors)):
        if values is not None and not (key == "NORMAL" and (np.linalg.norm(values, axis=1) < 0.5).any()):
            like = {"componentType": _FLOAT, "type": _WIDTHS[values.shape[1]]}
            attributes[key] = growing.accessor(values.astype(np.float32), like)
    scalar = {"componentType": _UINT32, "type": "SCALAR"}
    return {"attributes": attributes, "indices": growing.accessor(part.faces.reshape(-1, 1).astype(np.uint32), scalar)}


def _plain(growing: Growing, scene: Scene, material: int | None) -> dict[str, Any]:
    """The base colour of a material as it was read: factor, and its picture as PNG."""
    look = next(part.look for part in scene.parts if part.material == material)
    surface: dict[str, Any] = {"baseColorFactor": [*look.color, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.9}
    if look.texture is not None:
        images, textures = growing.document.setdefault("images", []), growing.document.setdefault("textures", [])
        images.append({"bufferView": growing.view(png_of_texture(look.texture)), "mimeType": "image/png"})
        samplers = growing.document.setdefault("samplers", [])
        samplers.append({key: _WRAPS[word] for key, word in zip(("wrapS", "wrapT"), look.wrap, strict=True)})
        textures.append({"source": len(images) - 1, "sampler": len(samplers) - 1})
        surface["baseColorTexture"] = {"index": len(textures) - 1}
    return {"pbrMetallicRoughness": surface}


def _upright(up: str, metres_per_unit: float) -> dict[str, Any]:
    """Rotation and scale of a node that turn a file's up axis to +y and its unit to the metre."""
    half = 0.5**0.5
    turn = {"y": None, "z": [-half, 0.0, 0.0, half], "x": [0.5, 0.5, 0.5, 0.5]}[up]
    rotation = {} if turn is None else {"rotation": turn}
    return rotation if metres_per_unit == 1 else {**rotation, "scale": [metres_per_unit] * 3}
