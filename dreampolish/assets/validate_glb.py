"""Structural checks of a GLB, for machines without the Khronos validator: container, references, bounds, geometry, pictures.

They cover what a wrong writer gets wrong, not the whole specification: extensions, animations and skins are not looked at.
"""

import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

Told = tuple[tuple[str, ...], tuple[str, ...], dict[str, float]]
"""Errors, warnings, figures."""

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_TRIANGLES = 4
_UNIT_TOLERANCE = 5e-3


class BadGlbError(ValueError):
    """The file breaks a rule, so that nothing after it can be read."""


def glb_findings(content: bytes) -> Told:
    """Errors, warnings and figures of a GLB's bytes."""
    try:
        document, binary = _chunks(content)
        reader = _Reader(document, binary)
        errors, triangles = reader.primitive_errors()
        picture_errors, warnings = reader.picture_findings()
    except BadGlbError as error:
        return (str(error),), (), {}
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, struct.error) as error:
        return (f"an entry is missing or of the wrong kind: {type(error).__name__} {error}",), (), {}
    return tuple(errors + picture_errors), tuple(warnings), {"triangles": float(triangles)}


def _chunks(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk (glTF 2.0, 4.4)."""
    if len(content) < 20 or content[:4] != b"glTF":
        raise BadGlbError("not a GLB: the first four bytes are not 'glTF'")
    version, length = struct.unpack("<II", content[4:12])
    if version != 2:
        raise BadGlbError(f"container version {version}, 2 is wanted")
    if length != len(content):
        raise BadGlbError(f"the header says {length} bytes, the file has {len(content)}")
    parts, start = [], 12
    while start < length:
        size, kind = struct.unpack("<I4s", content[start : start + 8])
        if size % 4 or start + 8 + size > length:
            raise BadGlbError(f"chunk {kind!r} of {size} bytes is not aligned or runs past the end")
        parts.append((kind, content[start + 8 : start + 8 + size]))
        start += 8 + size
    if not parts or parts[0][0] != b"JSON":
        raise BadGlbError("the first chunk is not JSON")
    try:
        document = json.loads(parts[0][1])
    except ValueError as error:
        raise BadGlbError(f"the JSON chunk cannot be parsed: {error}") from None
    if not isinstance(document, dict) or document.get("asset", {}).get("version") != "2.0":
        raise BadGlbError("asset.version is not 2.0")
    return document, next((part for kind, part in parts[1:] if kind == b"BIN\0"), b"")


class _Reader:
    """A parsed GLB."""

    def __init__(self, document: dict[str, Any], binary: bytes) -> None:
        self._document, self._binary = document, binary

    def _view(self, number: int) -> memoryview:
        view = self._document["bufferViews"][number]
        if "uri" in self._document["buffers"][view["buffer"]]:
            raise BadGlbError("buffers outside the file are not read")
        start, size = view.get("byteOffset", 0), view["byteLength"]
        if start < 0 or size < 1 or start + size > len(self._binary):
            raise BadGlbError(f"bufferViews/{number} runs past the binary chunk")
        return memoryview(self._binary)[start : start + size]

    def _accessor(self, number: int) -> np.ndarray:
        entry = self._document["accessors"][number]
        if "sparse" in entry or "bufferView" not in entry:
            raise BadGlbError(f"accessors/{number} is sparse, which is not read")
        kind, width = np.dtype(_COMPONENTS[entry["componentType"]]), _WIDTHS[entry["type"]]
        data, start = self._view(entry["bufferView"]), entry.get("byteOffset", 0)
        stride = self._document["bufferViews"][entry["bufferView"]].get("byteStride", kind.itemsize * width)
        if start % kind.itemsize or start + (entry["count"] - 1) * stride + kind.itemsize * width > len(data):
            raise BadGlbError(f"accessors/{number} is not aligned or runs past its view")
        shape, strides = (entry["count"], width), (stride, kind.itemsize)
        return np.ndarray(shape, kind, buffer=data, offset=start, strides=strides)

    def primitive_errors(self) -> tuple[list[str], int]:
        """Errors of all primitives, and their triangles."""
        errors, triangles = [], 0
        for mesh_number, mesh in enumerate(self._document.get("meshes", [])):
            for number, primitive in enumerate(mesh["primitives"]):
                place = f"meshes/{mesh_number}/primitives/{number}"
                errors += [f"{place}: {told}" for told in self._primitive(primitive)]
                count = self._document["accessors"][primitive.get("indices", primitive["attributes"]["POSITION"])]["count"]
                triangles += count // 3 if primitive.get("mode", _TRIANGLES) == _TRIANGLES else 0
        return (errors, triangles) if triangles else ([*errors, "holds no triangles"], 0)

    def _primitive(self, primitive: dict[str, Any]) -> Iterator[str]:
        attributes = {name: self._accessor(number) for name, number in primitive["attributes"].items()}
        places = attributes["POSITION"]
        if len({len(values) for values in attributes.values()}) > 1:
            yield "attributes differ in length"
        for name, values in attributes.items():
            if not np.isfinite(values).all():
                yield f"{name} holds a number that is not finite"
        entry = self._document["accessors"][primitive["attributes"]["POSITION"]]
        bounds = np.array([entry["min"], entry["max"]], dtype=np.float32)
        if not np.array_equal(bounds, [places.min(0), places.max(0)]):
            yield "POSITION's min and max are not those of its data"
        yield from _direction_errors(attributes)
        if "indices" in primitive:
            corners = self._accessor(primitive["indices"])
            if corners.max() >= len(places):
                yield f"index {corners.max()} of {len(places)} vertices"
            if primitive.get("mode", _TRIANGLES) == _TRIANGLES and len(corners) % 3:
                yield f"{len(corners)} indices are no triangles"
        if "material" in primitive and primitive["material"] >= len(self._document.get("materials", [])):
            yield f"there is no material {primitive['material']}"

    def picture_findings(self) -> tuple[list[str], list[str]]:
        """Errors and warnings of materials' textures and of all pictures."""
        errors, warnings = [], []
        textures, images = self._document.get("textures", []), self._document.get("images", [])
        for number, material in enumerate(self._document.get("materials", [])):
            surface = material.get("pbrMetallicRoughness", {})
            named = [surface.get("baseColorTexture"), surface.get("metallicRoughnessTexture"), material.get("normalTexture")]
            if any(entry is not None and entry["index"] >= len(textures) for entry in named):
                errors.append(f"materials/{number} names a texture that is not there")
        errors += [f"textures/{n} names no picture" for n, t in enumerate(textures) if t.get("source", 0) >= len(images)]
        for number, image in enumerate(images):
            if "bufferView" not in image:
                warnings.append(f"images/{number} lies outside the file and was not looked at")
                continue
            found, told = _picture(bytes(self._view(image["bufferView"])), image.get("mimeType", ""))
            errors += [f"images/{number}: {entry}" for entry in found]
            warnings += [f"images/{number}: {entry}" for entry in told]
        return errors, warnings


def _direction_errors(attributes: dict[str, np.ndarray]) -> Iterator[str]:
    for name, width in (("NORMAL", 3), ("TANGENT", 3)):
        if name in attributes:
            lengths = np.linalg.norm(attributes[name][:, :width].astype(np.float64), axis=1)
            if np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
                yield f"{name} is not of unit length"
    if "TANGENT" in attributes and not np.isin(attributes["TANGENT"][:, 3], (-1, 1)).all():
        yield "TANGENT's w is neither -1 nor 1"


def _picture(content: bytes, mime: str) -> tuple[list[str], list[str]]:
    """Errors and warnings of one embedded picture."""
    wanted = {"image/png": "PNG", "image/jpeg": "JPEG"}.get(mime)
    if wanted is None:
        return [f"mime type {mime!r} is neither PNG nor JPEG"], []
    try:
        with Image.open(io.BytesIO(content), formats=[wanted]) as picture:
            picture.load()
            sides = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return [f"no readable {wanted}: {error}"], []
    odd = [side for side in sides if side & (side - 1)]
    return [], [f"{sides[0]}x{sides[1]} pixels: not powers of two"] if odd else []
