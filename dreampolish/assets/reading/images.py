"""Pictures inside and beside meshes, as textures."""

import io
import warnings

import numpy as np
from PIL import Image

from dreampolish.assets.reading.scene import MeshError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF")
MAX_SIDE = 16_384
"""Pixels of a texture's side, at most; larger ones are refused before they are decoded."""
KEPT_SIDE = 4096
"""Pixels of a texture's side that are worked with; larger ones are averaged down."""


def texture_of_bytes(content: bytes, name: str) -> tuple[np.ndarray, str | None]:
    """A picture as (h, w, 3) float32 sRGB in [0, 1], and what a user should hear of it. Raises MeshError for one that is unreadable.

    16-bit grey is scaled, not clipped. Larger than KEPT_SIDE is averaged down by a power of two.
    """
    if content[:12] == b"\xabKTX 20\xbb\r\n\x1a\n":
        raise MeshError(f"{name} is a KTX2 texture, which is not read; export the mesh again with PNG or JPEG textures")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                if max(opened.size) > MAX_SIDE:
                    raise MeshError(f"{name} has {opened.size[0]}x{opened.size[1]} pixels; at most {MAX_SIDE} a side are read")
                picture, note = _in_size(opened, name)
                return rgb_of(picture), note
    except MeshError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MeshError(f"{name} cannot be read as a picture: {str(error)[:120]}") from None


def _in_size(opened: Image.Image, name: str) -> tuple[Image.Image, str | None]:
    factor = 1
    while max(opened.size) > KEPT_SIDE * factor:
        factor *= 2
    if factor == 1:
        return opened, None
    opened.load()
    return opened.reduce(
        factor
    ), f"{name} has {opened.size[0]}x{opened.size[1]} pixels and is worked with at 1/{factor} of that"


def rgb_of(picture: Image.Image) -> np.ndarray:
    """(h, w, 3) float32 in [0, 1] of a picture of any mode; alpha is dropped."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture.convert("I"), np.float32)
        grey = values / (65_535.0 if picture.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0)
        return np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=2)
    if picture.mode == "F":
        return np.repeat(np.clip(np.asarray(picture, np.float32), 0, 1)[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"), np.float32) / 255


def png_of_texture(texture: np.ndarray) -> bytes:
    """A texture (h, w, 3) in [0, 1] as a PNG's bytes."""
    stream = io.BytesIO()
    Image.fromarray((np.clip(texture, 0, 1) * 255).round().astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()
