"""Binary glTF 2.0 (GLB): +Y up, +Z front, metres, base colours as they are (sRGB)."""

import io
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreampolish.assets.asset import GLTF_FROM_WORLD, Asset, checked, pixels_of
from dreampolish.assets.reading.read import read_mesh
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.mesh.tangents import tangents_from_uv
from dreampolish.scene.untrusted.files import MESH_BYTES, RefusedError, read_regular
from dreampolish.scene.untrusted.glb import document_of_glb

GENERATOR = "DreamPolish"
_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTEX_DATA, _INDEX_DATA = 34962, 34963
# Linear between texels and mip levels; charts end before the picture does, so nothing repeats.
_SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}
_REPEATING = {**_SAMPLER, "wrapS": 10497, "wrapT": 10497}


@dataclass
class _Buffer:
    """The file's binary part as it grows, with the JSON entries that describe it."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, content: bytes, target: int | None) -> int:
        """Append bytes, padded to a multiple of four; the view's number."""
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(entry if target is None else {**entry, "target": target})
        self.data += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, component: int, kind: str, target: int, bounds: bool) -> int:
        """Append an array; the accessor's number."""
        entry = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": component,
            "count": len(values),
            "type": kind,
        }
        if bounds:
            entry |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


def write_glb(path: Path, asset: Asset, jpeg_quality: int | None) -> None:
    """One node, one mesh, a primitive and an opaque material per texture; positions, normals, tangents and uv.

    jpeg_quality: 1..100 for JPEG maps, None for PNG. The asset's extras are kept in the file's `asset.extras`. Raises ValueError if a
    coordinate is not finite or the mesh is empty.
    """
    path.write_bytes(glb_bytes(asset, jpeg_quality))


def glb_bytes(asset: Asset, jpeg_quality: int | None) -> bytes:
    """What `write_glb` writes."""
    mesh = asset.mesh
    checked(mesh)
    buffer = _Buffer()
    attributes = _attributes(buffer, mesh)
    primitives = [
        {"attributes": attributes, "indices": _indices(buffer, mesh, number), "material": number}
        for number in range(len(mesh.textures))
        if bool((mesh.face_texture == number).any())
    ]
    maps = [*mesh.textures, *([] if asset.normal_map is None else [asset.normal_map])]
    document = {
        "asset": {"version": "2.0", "generator": GENERATOR, "extras": asset.extras},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": asset.name}],
        "meshes": [{"primitives": primitives, "name": asset.name}],
        "materials": [_material(asset, number) for number in range(len(mesh.textures))],
        "textures": [{"source": number, "sampler": 0} for number in range(len(maps))],
        "samplers": [_SAMPLER if bool(((mesh.uv >= 0) & (mesh.uv <= 1)).all()) else _REPEATING],
        "images": [_image(buffer, texture, jpeg_quality) for texture in maps],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    return _container(document, bytes(buffer.data))


def _container(document: dict[str, Any], binary: bytes) -> bytes:
    """Header and the two chunks of glTF 2.0, 4.4."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, length)
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary


def _attributes(buffer: _Buffer, mesh: TexturedMesh) -> dict[str, int]:
    """Accessors of the vertex data, in glTF's axes."""
    vertices, uv = mesh.vertices.detach().cpu().float(), mesh.uv.detach().cpu().float()
    normals = torch.nn.functional.normalize(mesh.normals.detach().cpu().float(), dim=-1)
    # A vertex without a direction of its own still needs a unit normal in the file.
    normals[normals.norm(dim=-1) < 0.5] = torch.tensor([0.0, 0.0, 1.0])
    tangents = tangents_from_uv(vertices, normals, uv, mesh.faces.cpu())
    turned = {
        "POSITION": vertices[:, GLTF_FROM_WORLD],
        "NORMAL": normals[:, GLTF_FROM_WORLD],
        "TANGENT": tangents[:, [*GLTF_FROM_WORLD, 3]],
        "TEXCOORD_0": uv,
    }
    return {
        key: buffer.accessor(
            values=values.contiguous().numpy(),
            component=_FLOAT,
            kind=f"VEC{values.shape[1]}",
            target=_VERTEX_DATA,
            bounds=key == "POSITION",
        )
        for key, values in turned.items()
    }


def _indices(buffer: _Buffer, mesh: TexturedMesh, number: int) -> int:
    """An accessor of the corners of all faces with one texture."""
    corners = mesh.faces[mesh.face_texture == number].reshape(-1).cpu().numpy()
    # 65535 restarts a strip in 16 bits, so it must not occur.
    small = len(mesh.vertices) <= 65535
    values = corners.astype(np.uint16 if small else np.uint32)
    return buffer.accessor(
        values=values, component=_UINT16 if small else _UINT32, kind="SCALAR", target=_INDEX_DATA, bounds=False
    )


def _image(buffer: _Buffer, texture: Tensor, jpeg_quality: int | None) -> dict[str, Any]:
    """A picture in the binary part."""
    stream = io.BytesIO()
    if jpeg_quality is None:
        Image.fromarray(pixels_of(texture)).save(stream, "PNG", optimize=True)
    else:
        Image.fromarray(pixels_of(texture)).save(stream, "JPEG", quality=jpeg_quality, subsampling=0)
    mime = "image/png" if jpeg_quality is None else "image/jpeg"
    return {"bufferView": buffer.view(stream.getvalue(), None), "mimeType": mime}


def _material(asset: Asset, number: int) -> dict[str, Any]:
    surface = {
        "baseColorTexture": {"index": number},
        "metallicFactor": asset.metallic,
        "roughnessFactor": asset.roughness,
    }
    material: dict[str, Any] = {"name": f"material {number}", "pbrMetallicRoughness": surface}
    return material if asset.normal_map is None else {**material, "normalTexture": {"index": len(asset.mesh.textures)}}


def read_glb(path: Path) -> TexturedMesh:
    """A GLB's triangles with their base colours, in the world frame at the file's scale.

    Raises ValueError with the reason if the file cannot be read as it is, names another file or exceeds the bounds of
    dreampolish/scene/untrusted.
    """
    try:
        document_of_glb(read_regular(path, MESH_BYTES))
    except RefusedError as error:
        raise ValueError(f"{path.name} is refused: {error}") from None
    return read_mesh(path).in_file_frame()
