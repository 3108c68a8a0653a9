"""A binary glTF's bounds, looked at before a reader allocates what the file claims to hold (glTF 2.0, sections 3.6, 3.11 and 4.4)."""

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dreampolish.scene.untrusted.files import RefusedError
from dreampolish.scene.untrusted.images import PICTURE_SIDE, checked_size

HEADER = 20
"""Bytes before a GLB's JSON: magic, version, length; then the JSON's length and kind."""
JSON_BYTES = 64 * 2**20
NODES = 10_000
DEPTH = 100
"""Of nodes inside nodes; readers follow each node's way to the root."""
TRIANGLES = 20_000_000
"""Of all placed meshes together."""
PIXELS = 2**28
"""Of all pictures together."""
ELEMENTS = 2**24
"""Numbers in an accessor that has no bytes of its own in the file."""
COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}

Entry = Mapping[str, Any]


def document_of_glb(content: bytes) -> dict[str, Any]:
    """The JSON of a GLB whose claims keep to its bytes and to the bounds above. Its schema is not checked here.

    Raises RefusedError for what is no GLB of version 2, for other files that it names, and for what is out of bounds.
    """
    document, binary = _chunks(content)
    views = _entries(document, "bufferViews")
    _check_addresses(document)
    _check_views(document, len(binary))
    for number, accessor in enumerate(_entries(document, "accessors")):
        _check_accessor(accessor, views, f"accessor {number}")
    _check_nodes(_entries(document, "nodes"))
    _check_triangles(document)
    _check_pictures(document, binary)
    return document


def _chunks(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON chunk and the binary one."""
    magic, version, length, size, kind = struct.unpack("<4sIII4s", content[:HEADER].ljust(HEADER, b"\0"))
    if magic != b"glTF" or version != 2 or kind != b"JSON":
        raise RefusedError("not a GLB of version 2")
    if length != len(content):
        raise RefusedError(f"the header says {length} bytes, the file has {len(content)}")
    if HEADER + size > len(content) or size > JSON_BYTES:
        raise RefusedError(f"its JSON is said to have {size} bytes, the file has {len(content)}, the limit is {JSON_BYTES}")
    try:
        document = json.loads(content[HEADER : HEADER + size])
    except RecursionError:
        raise RefusedError("its JSON is nested too deeply") from None
    except ValueError as error:
        raise RefusedError(f"its JSON cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise RefusedError("its JSON is no object")
    rest = content[HEADER + size :]
    if len(rest) < 8 or rest[4:8] != b"BIN\0":
        return document, b""
    claimed = int.from_bytes(rest[:4], "little")
    if 8 + claimed > len(rest):
        raise RefusedError(f"its binary chunk is said to have {claimed} bytes, the file has {len(rest) - 8} of them")
    return document, rest[8 : 8 + claimed]


def _entries(document: Entry, name: str) -> Sequence[Entry]:
    """A list of the document; what has another type is left to the schema."""
    found = document.get(name)
    return [entry if isinstance(entry, dict) else {} for entry in found] if isinstance(found, list) else []


def _number(entry: Entry, name: str, otherwise: int = 0) -> int:
    found = entry.get(name)
    return found if isinstance(found, int) else otherwise


def _chosen(entries: Sequence[Entry], entry: Entry, name: str) -> Entry | None:
    number = _number(entry, name, -1)
    return entries[number] if 0 <= number < len(entries) else None


def _check_addresses(document: Entry) -> None:
    """A GLB holds its data itself; what it names besides is nowhere read from."""
    for kind in ("buffers", "images"):
        for number, entry in enumerate(_entries(document, kind)):
            address = entry.get("uri")
            if isinstance(address, str) and not address.startswith("data:"):
                raise RefusedError(f"{kind}[{number}] names {address[:100]!r}, a GLB must hold its data itself")


def _check_views(document: Entry, binary_bytes: int) -> None:
    buffers = _entries(document, "buffers")
    for number, buffer in enumerate(buffers):
        # The chunk may be up to 3 bytes longer than the buffer, never shorter.
        if "uri" not in buffer and _number(buffer, "byteLength") > binary_bytes:
            raise RefusedError(f"buffer {number} is said to have {buffer['byteLength']} bytes, the file holds {binary_bytes}")
    for number, view in enumerate(_entries(document, "bufferViews")):
        whole = _chosen(buffers, view, "buffer")
        start, length = _number(view, "byteOffset"), _number(view, "byteLength")
        if start < 0 or length < 0 or (whole is not None and start + length > _number(whole, "byteLength")):
            raise RefusedError(f"bufferView {number} ends at byte {start + length}, behind its buffer")


def _check_accessor(accessor: Entry, views: Sequence[Entry], named: str) -> None:
    width = COMPONENTS.get(str(accessor.get("type")), 1)
    size, count = width * COMPONENT_BYTES.get(_number(accessor, "componentType"), 4), _number(accessor, "count")
    view = _chosen(views, accessor, "bufferView")
    if count < 0:
        raise RefusedError(f"{named} has {count} elements")
    if view is None and count * width > ELEMENTS:
        raise RefusedError(f"{named} wants {count} elements that the file does not hold")
    if view is not None and count > 0:
        step = _number(view, "byteStride") or size
        wanted = _number(accessor, "byteOffset") + step * (count - 1) + size
        if wanted > _number(view, "byteLength"):
            raise RefusedError(f"{named} wants {wanted} bytes, its bufferView has {_number(view, 'byteLength')}")
    sparse = accessor.get("sparse")
    if isinstance(sparse, dict) and _number(sparse, "count") > count:
        raise RefusedError(f"{named} replaces {sparse['count']} of {count} elements")


def _children(node: Entry) -> Iterator[int]:
    listed = node.get("children")
    yield from (child for child in (listed if isinstance(listed, list) else []) if isinstance(child, int))


def _check_nodes(nodes: Sequence[Entry]) -> None:
    """Nodes are trees (glTF 2.0, 3.5.3): each has one parent at most, and none stands above itself."""
    if len(nodes) > NODES:
        raise RefusedError(f"it has {len(nodes)} nodes, the limit is {NODES}")
    parents: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for child in _children(node):
            if child in parents:
                raise RefusedError(f"node {child} stands under two nodes")
            parents[child] = number
    for number in range(len(nodes)):
        above, depth = number, 0
        while above in parents:
            above, depth = parents[above], depth + 1
            if depth > DEPTH:
                raise RefusedError(f"nodes stand inside nodes more than {DEPTH} deep, or in a circle")


def _check_triangles(document: Entry) -> None:
    accessors = _entries(document, "accessors")
    of_mesh = []
    for mesh in _entries(document, "meshes"):
        corners = 0
        for primitive in _entries(mesh, "primitives"):
            attributes = primitive.get("attributes")
            place = attributes if "indices" not in primitive and isinstance(attributes, dict) else primitive
            accessor = _chosen(accessors, place, "indices" if place is primitive else "POSITION")
            corners += 0 if accessor is None else _number(accessor, "count")
        of_mesh.append(corners)
    placed = [_number(node, "mesh", -1) for node in _entries(document, "nodes")]
    triangles = sum(of_mesh[number] for number in placed if 0 <= number < len(of_mesh)) // 3
    if triangles > TRIANGLES:
        raise RefusedError(f"it places {triangles} triangles, the limit is {TRIANGLES}")


def _check_pictures(document: Entry, binary: bytes) -> None:
    views, pixels = _entries(document, "bufferViews"), 0
    for number, image in enumerate(_entries(document, "images")):
        content = _picture(image, views, binary)
        if content is not None:
            width, height = checked_size(content, PICTURE_SIDE, f"image {number}")
            pixels += width * height
    if pixels > PIXELS:
        raise RefusedError(f"its pictures have {pixels} pixels together, the limit is {PIXELS}")


def _picture(image: Entry, views: Sequence[Entry], binary: bytes) -> bytes | None:
    """A picture's file, out of the binary chunk or of a data address; None where neither is given."""
    view, address = _chosen(views, image, "bufferView"), image.get("uri")
    if view is not None:
        start = _number(view, "byteOffset")
        return binary[start : start + _number(view, "byteLength")]
    if not isinstance(address, str):
        return None
    try:
        return base64.b64decode(address.partition(",")[2])
    except ValueError:
        raise RefusedError("a picture's data address cannot be read") from None
