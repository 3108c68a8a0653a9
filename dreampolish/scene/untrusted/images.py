"""Pictures that somebody else made, before they are decoded. PIL bounds what compressed texts and profiles in them may grow to."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from dreampolish.scene.untrusted.files import RefusedError

FORMATS = ("PNG", "JPEG", "WEBP")
PICTURE_SIDE = 8192
"""Pixels of a side of a picture that a mesh names or holds."""


def checked_size(content: bytes, most_side: int, named: str) -> tuple[int, int]:
    """Width and height of a PNG, JPEG or WebP, from its header.

    named: the picture in the message. Raises RefusedError for other content, too large pictures and headers that unpack to too much.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size
        except UnidentifiedImageError:
            raise RefusedError(f"{named} is no PNG, JPEG or WebP") from None
        except Image.DecompressionBombError:
            raise RefusedError(f"{named} has more pixels than can be read, the limit is {most_side} a side") from None
        except (OSError, SyntaxError, ValueError) as error:
            raise RefusedError(f"{named} cannot be read: {' '.join(str(error).split())}") from None
    if max(width, height) > most_side:
        raise RefusedError(f"{named} is {width}x{height} pixels, the limit is {most_side} a side")
    return width, height


def in_eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8, which Pillow's own conversion would clip; any other picture as it is."""
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    grey = Image.fromarray((values / 257).round().clip(0, 255).astype(np.uint8))
    clear = picture.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
