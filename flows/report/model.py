"""A GLB inside a page: unchanged where it fits, else a copy with smaller maps."""

import io
import json
import struct
from typing import Any

from PIL import Image

LIGHTER_SIDES = (2048, 1024, 512, 256)
"""Pixels of the maps' longest side in lighter copies, tried in order."""
JPEG_QUALITY = 85
_JSON, _BINARY = 0x4E4F534A, 0x004E4942


def fitting_glb(glb: bytes, limit: int) -> bytes | None:
    """The GLB if it has at most `limit` bytes, else the largest lighter copy that has; None if there is none."""
    if len(glb) <= limit:
        return glb
    try:
        copies = (lighter_glb(glb, side) for side in LIGHTER_SIDES)
        return next((copy for copy in copies if len(copy) <= limit), None)
    except (ValueError, KeyError, IndexError, OSError, struct.error, Image.DecompressionBombError):
        # Not a file of ours: a page without a model is better than none.
        return None


def lighter_glb(glb: bytes, side: int) -> bytes:
    """The same GLB with its maps as JPEG of at most `side` pixels. Raises ValueError if the bytes are no GLB."""
    document, binary = _chunks(glb)
    pictures = {image["bufferView"]: image for image in document.get("images", []) if "bufferView" in image}
    data = bytearray()
    for number, view in enumerate(document.get("bufferViews", [])):
        start = view.get("byteOffset", 0)
        content = binary[start : start + view["byteLength"]]
        if number in pictures:
            content = _as_jpeg(content, side)
            pictures[number]["mimeType"] = "image/jpeg"
        view |= {"byteOffset": len(data), "byteLength": len(content)}
        data += content + b"\0" * (-len(content) % 4)
    document["buffers"] = [{"byteLength": len(data)}]
    return _container(document, bytes(data))


def _as_jpeg(content: bytes, side: int) -> bytes:
    with Image.open(io.BytesIO(content), formats=["PNG", "JPEG", "WEBP"]) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _chunks(glb: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of glTF 2.0, 4.4."""
    if glb[:4] != b"glTF":
        raise ValueError("no GLB")
    json_length, json_kind = struct.unpack_from("<II", glb, 12)
    start = 20 + json_length
    binary_length, binary_kind = struct.unpack_from("<II", glb, start)
    if (json_kind, binary_kind) != (_JSON, _BINARY):
        raise ValueError("no GLB with a binary chunk")
    return json.loads(glb[20:start]), glb[start + 8 : start + 8 + binary_length]


def _container(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(binary)
    head = struct.pack("<4sII", b"glTF", 2, length)
    return head + struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", len(binary), _BINARY) + binary
