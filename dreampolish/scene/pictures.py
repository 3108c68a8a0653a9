"""Pictures in and out: safe reading, PNG writing, labelled sheets and turntables. Arrays are float in [0, 1], (height, width, channels)."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from dreampolish.scene.untrusted.files import PICTURE_BYTES, RefusedError, read_regular
from dreampolish.scene.untrusted.images import FORMATS, checked_size, in_eight_bits

MAX_SIDE = 4096
"""Pixels of the longest side of a picture that is read; larger ones are refused before they are decoded."""


class PictureError(ValueError):
    """A picture cannot be used; the message says why and what to do."""


def read_picture(path: Path) -> Float[Tensor, "h w 4"]:
    """An RGBA picture; one without alpha gets alpha 1. Formats: PNG, JPEG, WebP; at most 4096 pixels a side.

    Raises PictureError for anything else, for truncated files and for decompression bombs.
    """
    try:
        content = read_regular(path, PICTURE_BYTES)
    except FileNotFoundError:
        raise PictureError(f"no picture at {path}; give the path of a PNG, JPEG or WebP file") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}") from None
    except RefusedError as error:
        raise PictureError(f"{error}; give a PNG, JPEG or WebP file") from None
    return picture_from_bytes(content, str(path))


def picture_from_bytes(content: bytes, named: str) -> Float[Tensor, "h w 4"]:
    """What `read_picture` makes of a file with this content. named: the picture in messages. Raises PictureError."""
    try:
        checked_size(content, MAX_SIDE, named)
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            rgba = in_eight_bits(ImageOps.exif_transpose(opened)).convert("RGBA")
    except RefusedError as error:
        raise PictureError(f"{error}; save it as a PNG of at most {MAX_SIDE} pixels a side") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"{named} cannot be read as PNG, JPEG or WebP ({error}); save it again as PNG") from None
    return torch.from_numpy(np.asarray(rgba, dtype=np.float32) / 255)


def write_picture(path: Path, picture: Float[Tensor, "h w c"]) -> None:
    """Write a PNG of 1, 3 or 4 channels; values are clamped to [0, 1]."""
    pil_from_tensor(picture).save(path, format="PNG")


def pil_from_tensor(picture: Float[Tensor, "h w c"]) -> Image.Image:
    """An 8-bit PIL picture, values rounded and clamped."""
    array = (picture.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def sheet(rows: Sequence[tuple[str, Float[Tensor, "_ _ _ 3"]]], scale: int) -> Image.Image:
    """Rows of pictures under each other, a label before each row; every row may have its own picture size.

    scale: integer factor by which pictures are enlarged (nearest neighbour).
    """
    label_width, gap = 120, 4
    font = ImageFont.load_default(size=14)
    heights = [pictures.shape[1] * scale + gap for _, pictures in rows]
    widths = [len(pictures) * (pictures.shape[2] * scale + gap) for _, pictures in rows]
    canvas = Image.new("RGB", (label_width + max(widths), sum(heights)), "white")
    draw = ImageDraw.Draw(canvas)
    top = 0
    for (label, pictures), height in zip(rows, heights, strict=True):
        draw.text((6, top + height / 2 - 8), label, fill="black", font=font)
        for index, picture in enumerate(pictures):
            tile = pil_from_tensor(picture)
            tile = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
            canvas.paste(tile, (label_width + index * (tile.width + gap), top))
        top += height
    return canvas


def write_turntable(path: Path, frames: Float[Tensor, "n h w 3"], seconds: float) -> None:
    """An endless animated WebP that takes `seconds` for one turn."""
    pictures = [pil_from_tensor(frame) for frame in frames]
    pictures[0].save(
        path,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 * seconds / len(pictures)),
        loop=0,
        quality=85,
    )


def resize(pictures: Float[Tensor, "b h w c"], size: int) -> Float[Tensor, "b size size c"]:
    """Square pictures at another size: area-averaged down, bilinear up; differentiable."""
    channels_first = pictures.permute(0, 3, 1, 2)
    if size == pictures.shape[1]:
        return pictures
    resized = torch.nn.functional.interpolate(
        channels_first, size=(size, size), mode="bilinear", align_corners=False, antialias=size < pictures.shape[1]
    )
    return resized.permute(0, 2, 3, 1)
