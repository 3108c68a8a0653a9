"""A glTF file's JSON, buffers and accessors (glTF 2.0, 3.6): bounded, decoded, sparse ones filled in."""

import base64
import binascii
import json
import struct
from typing import Any

import numpy as np

from dreampolish.assets.reading.scene import MeshError
from dreampolish.assets.reading.source import MeshFiles

COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MAX_VALUES = 100_000_000
"""Numbers of an accessor, at most, whatever it claims."""
_JSON, _BINARY = b"JSON", b"BIN\0"


class GltfData:
    """A document and what it refers to. `document` is the JSON as it stands in the file; `binary` the GLB's own chunk."""

    def __init__(self, files: MeshFiles) -> None:
        self.files, self.name = files, files.name
        self.document, self.binary = _chunks(files)
        self._buffers: dict[int, bytes] = {}
        version = str(self.document.get("asset", {}).get("version", ""))
        if not version.startswith("2"):
            raise MeshError(f"{self.name} is glTF {version or 'without a version'}; version 2 is read: export it again")

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """A top-level list of the document."""
        return list(self.document.get(kind, []))

    def entry(self, kind: str, index: int) -> dict[str, Any]:
        """One entry of a top-level list. Raises MeshError where it is not there."""
        found = self.document.get(kind, [])
        if not isinstance(index, int) or not 0 <= index < len(found):
            raise MeshError(f"{self.name} names number {index} of its {kind}, but has {len(found)}")
        return dict(found[index])

    def view(self, index: int) -> bytes:
        """The bytes of a buffer view."""
        entry = self.entry("bufferViews", index)
        if "EXT_meshopt_compression" in entry.get("extensions", {}) or "KHR_meshopt_compression" in entry.get("extensions", {}):
            raise MeshError(
                f"{self.name} is compressed by meshopt; it is read uncompressed only: export it again without compression"
            )
        buffer, start, length = self.buffer(entry["buffer"]), entry.get("byteOffset", 0), entry["byteLength"]
        if min(start, length) < 0 or start + length > len(buffer):
            raise MeshError(f"{self.name} claims {start + length:,} bytes of a buffer that has {len(buffer):,}")
        return buffer[start : start + length]

    def buffer(self, index: int) -> bytes:
        """A buffer's bytes: the GLB's own chunk, a data URI or a file beside the mesh."""
        if index not in self._buffers:
            uri = self.entry("buffers", index).get("uri")
            if uri is None:
                if self.binary is None or index != 0:
                    raise MeshError(f"{self.name} has no data for buffer {index}")
                self._buffers[index] = self.binary
            else:
                self._buffers[index] = self.bytes_of_uri(uri)
        return self._buffers[index]

    def bytes_of_uri(self, uri: str) -> bytes:
        """A data URI's content, or that of a file beside the mesh."""
        if not uri.startswith("data:"):
            return self.files.named(uri)
        try:
            return base64.b64decode(uri.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise MeshError(f"{self.name} holds a damaged data URI: {error}") from None

    def raw(self, index: int) -> np.ndarray:
        """An accessor's components as stored, (count, width), sparse values filled in, nothing normalised."""
        entry = self.entry("accessors", index)
        kind, width, count = COMPONENTS.get(entry.get("componentType", 0)), WIDTHS.get(entry.get("type", "")), entry["count"]
        if kind is None or width is None or not isinstance(count, int) or count < 0:
            raise MeshError(f"{self.name} has an accessor of an unknown kind")
        if count * width > MAX_VALUES:
            raise MeshError(f"{self.name} claims an accessor of {count:,} entries; at most {MAX_VALUES // width:,} are read")
        if "bufferView" in entry:
            stride = self.entry("bufferViews", entry["bufferView"]).get("byteStride", 0)
            offset = entry.get("byteOffset", 0)
            values = self._strided(
                view=entry["bufferView"], offset=offset, kind=np.dtype(kind), shape=(count, width), stride=stride
            )
        else:
            values = np.zeros((count, width), kind)
        return self._with_sparse(values, entry["sparse"]) if "sparse" in entry else values

    def _strided(self, view: int, offset: int, kind: np.dtype[Any], shape: tuple[int, int], stride: int) -> np.ndarray:
        content, (count, width) = self.view(view), shape
        step = stride or kind.itemsize * width
        needed = offset + (step * (count - 1) + kind.itemsize * width if count else 0)
        if offset < 0 or step < kind.itemsize * width or needed > len(content):
            raise MeshError(f"{self.name} claims {needed:,} bytes of a view that has {len(content):,}")
        little = kind.newbyteorder("<")
        strides = (step, kind.itemsize)
        return np.ndarray(shape, little, content, offset=offset, strides=strides).astype(kind)

    def _with_sparse(self, values: np.ndarray, sparse: dict[str, Any]) -> np.ndarray:
        """The values with those of a sparse accessor in place (glTF 2.0, 3.6.2.3)."""
        count, places, given = sparse["count"], sparse["indices"], sparse["values"]
        kind = np.dtype(COMPONENTS[places["componentType"]])
        offset = places.get("byteOffset", 0)
        rows = self._strided(view=places["bufferView"], offset=offset, kind=kind, shape=(count, 1), stride=0)
        rows = rows[:, 0].astype(np.int64)
        if len(rows) and rows.max() >= len(values):
            raise MeshError(f"{self.name} has a sparse accessor that names entry {rows.max()} of {len(values)}")
        shape = (count, values.shape[1])
        offset = given.get("byteOffset", 0)
        values[rows] = self._strided(view=given["bufferView"], offset=offset, kind=values.dtype, shape=shape, stride=0)
        return values

    def numbers(self, index: int) -> np.ndarray:
        """An accessor as float64 (count, width), integers normalised where the accessor says so (glTF 2.0, 3.6.2.2)."""
        entry, raw = self.entry("accessors", index), self.raw(index)
        values = raw.astype(np.float64)
        if not entry.get("normalized") or raw.dtype == np.float32:
            return values
        return np.maximum(values / np.iinfo(raw.dtype).max, -1.0)

    def indices(self, index: int) -> np.ndarray:
        """An accessor of corner numbers, (count,)."""
        values = self.raw(index)
        if values.shape[1] != 1 or values.dtype == np.float32:
            raise MeshError(f"{self.name} has face indices that are no integers")
        return values[:, 0].astype(np.int64)


def _chunks(files: MeshFiles) -> tuple[dict[str, Any], bytes | None]:
    """The JSON and the binary chunk (glTF 2.0, 4.4) of a GLB or of a .gltf."""
    content, name = files.content, files.name
    text, binary = content, None
    if content[:4] == b"glTF":
        if len(content) < 20:
            raise MeshError(f"{name} ends after {len(content)} bytes: it is cut off")
        version, length, size, kind = struct.unpack_from("<III4s", content, 4)
        if version != 2:
            raise MeshError(f"{name} is a GLB of version {version}; version 2 is read: export it again")
        if kind != _JSON or length > len(content) or 20 + size > len(content):
            raise MeshError(f"{name} says it has {length:,} bytes and has {len(content):,}: it is cut off or damaged")
        text = content[20 : 20 + size]
        binary = _binary_chunk(content, 20 + size + (-size % 4))
    elif files.kind == "glb":
        raise MeshError(f"{name} is no GLB: it does not begin with glTF")
    try:
        document = json.loads(text.decode("utf-8-sig").rstrip("\0 "))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise MeshError(f"{name} holds no readable JSON: {error}") from None
    if not isinstance(document, dict):
        raise MeshError(f"{name} holds JSON that is no glTF document")
    return document, binary


def _binary_chunk(content: bytes, start: int) -> bytes | None:
    if start + 8 > len(content):
        return None
    size, kind = struct.unpack_from("<I4s", content, start)
    if kind != _BINARY:
        return None
    if start + 8 + size > len(content):
        raise MeshError(f"the GLB's data ends after {len(content) - start - 8:,} of {size:,} bytes: it is cut off")
    return content[start + 8 : start + 8 + size]
