"""Pictures inside a page: a stage's turntable as one strip, as a data URI."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dreampolish.scene.untrusted.images import FORMATS, in_eight_bits

MAX_VIEWS = 16
"""Views of a turntable on a page; of more, evenly spaced ones are taken."""
QUALITY = 84
SQUARE, SQUARE_GREYS = 8, (150, 190)
"""Pixels of a side, and brightnesses in turn, of the squares behind a picture cut out."""


@dataclass(frozen=True)
class Strip:
    """Square views side by side, azimuth 0 first, evenly spaced counter-clockwise."""

    uri: str
    n_views: int
    side: int


def strip_of_views(paths: Sequence[Path], max_side: int) -> Strip:
    """Views as one WebP picture, none larger than `max_side` pixels. Raises OSError for a file that is no PNG."""
    chosen = evenly(paths, MAX_VIEWS)
    views = [_opened(path) for path in chosen]
    side = min(max_side, max(max(view.size) for view in views))
    strip = Image.new("RGB", (side * len(views), side), "white")
    for number, view in enumerate(views):
        scaled = view.resize((side, side), Image.Resampling.LANCZOS) if view.size != (side, side) else view
        strip.paste(scaled, (number * side, 0))
    return Strip(_webp_uri(strip), len(views), side)


def picture_uri(path: Path) -> str:
    """A picture of its own size as a data URI. Raises OSError for a file that is no PNG."""
    return _webp_uri(_opened(path))


def cut_out_uri(path: Path) -> str:
    """A picture cut out, over grey squares that show also where a white object ends, as a data URI. Raises OSError for no PNG."""
    with Image.open(path, formats=["PNG"]) as picture:
        rgba = picture.convert("RGBA")
    rows, columns = np.indices((rgba.height, rgba.width)) // SQUARE
    squares = Image.fromarray(np.where((rows + columns) % 2 == 0, *SQUARE_GREYS).astype(np.uint8)).convert("RGBA")
    return _webp_uri(Image.alpha_composite(squares, rgba).convert("RGB"))


def small_picture_uri(path: Path, max_side: int) -> str:
    """A user's picture on white, no side longer than `max_side` pixels, as a data URI. Raises OSError for a file that is no picture."""
    with Image.open(path, formats=FORMATS) as picture:
        turned = in_eight_bits(ImageOps.exif_transpose(picture)).convert("RGBA")
        turned.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", turned.size, "white")
    return _webp_uri(Image.alpha_composite(paper, turned).convert("RGB"))


def evenly(paths: Sequence[Path], limit: int) -> list[Path]:
    """All paths, or at most `limit` of them at equal distances around the turn, the first included."""
    count = len(paths)
    if count <= limit:
        return list(paths)
    n = next(number for number in range(limit, 0, -1) if count % number == 0)
    return [paths[index * count // n] for index in range(n)]


def _opened(path: Path) -> Image.Image:
    with Image.open(path, formats=["PNG"]) as picture:
        return picture.convert("RGB")


def _webp_uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
