"""What a user gives, checked at the door: a prompt in words that the text prior can draw, and a picture of one object."""

import hashlib
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.priors.folders.known_words import content_words
from dreampolish.scene.untrusted.files import PICTURE_BYTES, RefusedError, read_regular
from schemas.config.presets import ConfigError
from schemas.config.reference import ReferenceConfig
from schemas.config.run import PROMPT_LIMIT
from stages.guidance.words import VOCABULARY, check_words
from stages.runtime.command import input_path
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line
from stages.runtime.shared.stores import share_input

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLE = "say what you want, as in: a red armchair"

DESCRIBING = frozenset(
    " ".join(
        (
            "beige black blue brown cyan gray green grey orange pink purple red teal turquoise violet white yellow dark",
            "wooden plastic painted potted folded folding decorative classic modern easy full double mini little small large high",
            "low lower deep old round straight upright indoor outdoor electronic technical wireless concrete rattan hot snowy",
            "japanese french siamese sleeping sitting roasted cutting changing washing dressing shopping camping recycling inkjet",
            "propane security surveillance sports fitness birthday city class day number bedside",
            "front side back overhead view",
        )
    ).split()
)
"""Words of the priors' captions that say what a thing is like, or from where it is seen, and name none."""


def plain_prompt(prompt: str) -> str:
    """The prompt without outer and double spaces and invisible format characters, in Unicode's usual form (NFKC).

    Format characters (category Cf: zero-width spaces and joiners, byte order and direction marks, soft hyphens) come along with copied
    text and name nothing. Two prompts that look alike are one; what is plain already stays as it is.
    """
    visible = "".join(letter for letter in prompt if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).split())


def checked_prompt(prompt: str) -> str:
    """The prompt as `plain_prompt` gives it. Raises ConfigError for an empty, too long or unprintable one."""
    words = plain_prompt(prompt)
    if not words:
        raise ConfigError(f"the prompt is empty; {EXAMPLE}")
    if len(words) > PROMPT_LIMIT:
        raise ConfigError(
            f"the prompt has {len(words)} characters, the limit is {PROMPT_LIMIT}; describe one object in a few words"
        )
    if not words.isprintable() or not _said(words):
        raise ConfigError(f"the prompt holds no readable words; {EXAMPLE}")
    return words


def words_of_name(file: Path) -> str:
    """A prompt out of a file's name, for a run that draws nothing."""
    words = plain_prompt(re.sub(r"[^\w]+|_", " ", file.stem))[:PROMPT_LIMIT]
    return words if _said(words) else "a mesh"


def check_thing_named(prompt: str, run: RunContext, config: ReferenceConfig, drawn: bool) -> None:
    """Raise ConfigError where the text prior knows none of the words that could name a thing.

    drawn: the prior draws the reference itself. Beside a user's picture, any known word will do. Priors without a list of words and
    `unknown_words=allow` let everything pass.
    """
    listed = (Path(run.prior_folder(run.priors.text.source)) / VOCABULARY).is_file()
    if not listed or config.unknown_words == "allow":
        return
    naming = [word for word in _said(prompt) if not drawn or not {word, word.removesuffix("s")} & DESCRIBING]
    if not naming:
        raise ConfigError(f"the prompt '{prompt}' names no object, only a property; {EXAMPLE}")
    try:
        check_words(run, " ".join(naming), "refuse")
    except StageError as error:
        raise ConfigError(str(error)) from None


def _said(prompt: str) -> list[str]:
    """A prompt's words, lower case, without numbers, function words, single letters and the 's of possessives."""
    return [word for word in content_words(prompt) if not _is_letter(word)]


def _is_letter(word: str) -> bool:
    """Single letters of an alphabet name nothing; single signs of other scripts may."""
    return len(word) == 1 and word.isascii()


def keep_image(store: Path, image: Path, config: ReferenceConfig, *, matted: bool = False) -> str:
    """Check a user's picture and copy it into the store under its hash, which is returned. matted: a matting model will cut it.

    Raises ConfigError for a picture that cannot be used, StageError where the disk is full.
    """
    from dreampolish.scene.pictures import PictureError, picture_from_bytes

    try:
        payload = read_regular(image, PICTURE_BYTES)
        _check_shows_an_object(picture_from_bytes(payload, str(image)), config, matted=matted)
    except RefusedError as error:
        raise ConfigError(f"{error}; give the path of a PNG, JPEG or WebP file") from None
    except PictureError as error:
        raise ConfigError(str(error) if str(image) in str(error) else f"{image}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{image} cannot be read: {error.strerror}; give the path of a PNG, JPEG or WebP file") from None
    digest = hashlib.sha256(payload).hexdigest()
    path = input_path(store, digest)
    with disk_errors_in_one_line(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, payload)
        share_input(store, digest)
    return digest


def _check_shows_an_object(rgba: "Tensor", config: ReferenceConfig, *, matted: bool) -> None:
    """Raise PictureError for what the reference stage would refuse."""
    from dreampolish.scene.cutout import CutoutSizes, as_framed, check_foreground, cut_from_plain_background
    from dreampolish.scene.pictures import PictureError

    if bool((rgba[..., 3] == 1).all()):
        if matted:
            return
        rgba = cut_from_plain_background(rgba[..., :3], config.background_tolerance, CutoutSizes(**config.cutout.model_dump()))
    if not bool((rgba[..., 3] > 0.5).any()):
        raise PictureError("no object stands out from the background; give a picture of one object on another colour, or RGBA")
    check_foreground(rgba[..., 3])
    if config.framing == "as_is":
        as_framed(rgba, config.size)
