"""Small glTF files as exporters write them: a box of 1.0 x 1.6 x 0.6 (x, y, z) with a texture of four colours, to be changed by a test."""

import io
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (1.0, 1.6, 0.6)
COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 200, 40))
"""sRGB of the texture's quarters: upper left, upper right, lower left, lower right."""
_KINDS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}


def png(array: np.ndarray) -> bytes:
    """A picture's file."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def quarters() -> np.ndarray:
    """The texture, 16 x 16."""
    picture = np.zeros((16, 16, 3), np.uint8)
    for number, color in enumerate(COLORS):
        row, column = 8 * (number // 2), 8 * (number % 2)
        picture[row : row + 8, column : column + 8] = color
    return picture


def box() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions (24, 3), normals, texture coordinates (each face the whole picture) and faces (12, 3), outward."""
    positions, normals, uvs, faces = [], [], [], []
    half = np.array(SIZE) / 2
    for axis in range(3):
        for sign in (-1, 1):
            across, along = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            middle = sign * np.eye(3)[axis]
            corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
            start = len(positions)
            positions += [(middle + a * across + b * along) * half for a, b in corners]
            normals += [middle] * 4
            uvs += [((a + 1) / 2, (1 - b) / 2) for a, b in corners]
            order = (0, 1, 2, 0, 2, 3) if sign > 0 else (0, 2, 1, 0, 3, 2)
            faces += [[start + k for k in order[:3]], [start + k for k in order[3:]]]
    return np.array(positions, np.float32), np.array(normals, np.float32), np.array(uvs, np.float32), np.array(faces, np.uint16)


@dataclass
class GltfFile:
    """A document and its binary part, both open to change."""

    document: dict[str, Any] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)

    def view(self, content: bytes, **more: Any) -> int:
        """Append bytes; the view's number."""
        entry = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content), **more}
        self.document.setdefault("bufferViews", []).append(entry)
        self.data += content + b"\0" * (-len(content) % 4)
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values: np.ndarray, **more: Any) -> int:
        """Append an array; the accessor's number."""
        width = 1 if values.ndim == 1 else int(np.prod(values.shape[1:]))
        entry = {
            "bufferView": self.view(values.tobytes()),
            "componentType": _COMPONENTS[str(values.dtype)],
            "count": len(values),
            "type": _KINDS[width],
            **more,
        }
        self.document.setdefault("accessors", []).append(entry)
        return len(self.document["accessors"]) - 1

    @property
    def primitive(self) -> dict[str, Any]:
        """The first primitive."""
        found: dict[str, Any] = self.document["meshes"][0]["primitives"][0]
        return found

    @property
    def node(self) -> dict[str, Any]:
        """The first node."""
        found: dict[str, Any] = self.document["nodes"][0]
        return found

    @property
    def material(self) -> dict[str, Any]:
        """The first material."""
        found: dict[str, Any] = self.document["materials"][0]
        return found

    def require(self, extension: str) -> None:
        """Say that a reader must know an extension."""
        self.document.setdefault("extensionsUsed", []).append(extension)
        self.document.setdefault("extensionsRequired", []).append(extension)

    def glb(self) -> bytes:
        """The file."""
        document = {**self.document}
        if self.data and "buffers" not in document:
            document["buffers"] = [{"byteLength": len(self.data)}]
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text
        if self.data:
            body += struct.pack("<I4s", len(self.data), b"BIN\0") + bytes(self.data)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def write(self, path: Path) -> Path:
        """Write the file; its path."""
        path.write_bytes(self.glb())
        return path


def textured_box() -> GltfFile:
    """The box with its texture."""
    file = GltfFile(
        {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "name": "box"}]}
    )
    positions, normals, uvs, faces = box()
    attributes = {
        "POSITION": file.accessor(positions, min=positions.min(0).tolist(), max=positions.max(0).tolist()),
        "NORMAL": file.accessor(normals),
        "TEXCOORD_0": file.accessor(uvs),
    }
    primitive = {"attributes": attributes, "indices": file.accessor(faces.reshape(-1)), "material": 0}
    file.document |= {
        "meshes": [{"name": "box", "primitives": [primitive]}],
        "materials": [{"name": "paint", "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": file.view(png(quarters())), "mimeType": "image/png"}],
    }
    return file
