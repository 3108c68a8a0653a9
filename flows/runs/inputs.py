"""What a user gives, checked at the door: a prompt in words that the text prior can draw, and pictures of one object."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.priors.text.known_words import content_words
from dreampolish.scene.untrusted.files import PICTURE_BYTES, RefusedError, read_regular
from schemas.config.presets import ConfigError
from schemas.config.reference import ReferenceConfig
from schemas.config.run import PROMPT_LIMIT
from schemas.runs import HIGHEST_PICTURE_DEG, MOST_PICTURES, OtherPicture
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


POSED = "as in back.png@180 or left.png@270,10: azimuth, elevation in degrees"
ONE_POSE_DEG = 2.0
"""Angle between two pictures' views, degrees, below which they are from one place. [choice]"""


@dataclass(frozen=True)
class GivenPicture:
    """A picture from elsewhere than the front. elevation_deg: None: as high as the front's."""

    path: Path
    azimuth_deg: float
    elevation_deg: float | None


@dataclass(frozen=True)
class GivenPictures:
    """A user's pictures: that of the front, the others, and the settings that say from how high the front was taken."""

    front: Path | None = None
    others: tuple[GivenPicture, ...] = ()
    settings: tuple[str, ...] = ()


def pictures_of(given: Sequence[str], located: Callable[[str], Path]) -> GivenPictures:
    """The pictures of FILE or FILE@AZIMUTH[,ELEVATION]; one of them, without a pose or at azimuth 0, shows the front.

    located: the path that FILE means. Raises ConfigError, in one line, for a pose that is none or too steep, no front, or too many.
    """
    if len(given) > MOST_PICTURES:
        raise ConfigError(f"{len(given)} pictures were given, the limit is {MOST_PICTURES}; give those that show most")
    posed = [_posed(words, located) for words in given]
    fronts = [each for each in posed if each.azimuth_deg == 0]
    if not posed:
        return GivenPictures()
    if not fronts:
        raise ConfigError(f"no picture shows the front; give one without a pose, beside {given[0]}")
    if len(fronts) > 1:
        raise ConfigError(
            f"{fronts[0].path} and {fronts[1].path} both show the front; say where the others were taken from, {POSED}"
        )
    rise = fronts[0].elevation_deg
    return GivenPictures(
        front=fronts[0].path,
        others=tuple(each for each in posed if each is not fronts[0]),
        settings=() if rise is None else (f"reference.elevation_deg={rise}",),
    )


def _posed(words: str, located: Callable[[str], Path]) -> GivenPicture:
    name, mark, pose = words.rpartition("@")
    if not mark or (located(words).is_file() and not located(name).is_file()):
        return GivenPicture(located(words), 0.0, None)
    try:
        azimuth, elevation = (float(part) for part in (pose if "," in pose else f"{pose},nan").split(","))
    except ValueError:
        raise ConfigError(f"{words}: {pose!r} is no pose, {POSED}") from None
    if not math.isfinite(azimuth) or abs(azimuth) > 360 or ("," in pose and not math.isfinite(elevation)):
        raise ConfigError(f"{words}: the azimuth lies between -360 and 360 degrees, {POSED}")
    if "," in pose and abs(elevation) > HIGHEST_PICTURE_DEG:
        raise ConfigError(
            f"{words}: elevation {elevation:g} is too steep; take pictures from between -{HIGHEST_PICTURE_DEG:g} and "
            f"{HIGHEST_PICTURE_DEG:g} degrees"
        )
    return GivenPicture(located(name), (azimuth + 180) % 360 - 180, elevation if "," in pose else None)


def keep_others(
    store: Path, front: str, others: Sequence[GivenPicture], config: ReferenceConfig, *, matted: bool
) -> tuple[OtherPicture, ...]:
    """Check the pictures beside the front's, whose hash is given, and keep them as it is kept.

    Raises ConfigError, in one line, also where two were taken from one place or are the same.
    """
    from stages.guidance.painted.painters import angle_between  # torch

    seen = {front: ("the front's picture", (0.0, config.elevation_deg))}
    kept = []
    for each in others:
        rise = config.elevation_deg if each.elevation_deg is None else each.elevation_deg
        digest = keep_image(store, each.path, config, matted=matted, whole=True)
        if digest in seen:
            raise ConfigError(f"{each.path} is {seen[digest][0]} once more; give each picture once")
        near = [name for name, pose in seen.values() if angle_between(pose, (each.azimuth_deg, rise)) < ONE_POSE_DEG]
        if near:
            raise ConfigError(
                f"{each.path} and {near[0]} are said to be taken from one place; give one of them, or its own pose"
            )
        seen[digest] = (str(each.path), (each.azimuth_deg, rise))
        kept.append(OtherPicture(image=digest, azimuth_deg=each.azimuth_deg, elevation_deg=rise))
    return tuple(kept)


def keep_image(store: Path, image: Path, config: ReferenceConfig, *, matted: bool = False, whole: bool = False) -> str:
    """Check a user's picture and copy it into the store under its hash, which is returned. matted: a matting model will cut it. whole:
    one whose object is cut off is refused.

    Raises ConfigError for a picture that cannot be used, StageError where the disk is full.
    """
    from dreampolish.scene.pictures import PictureError, picture_from_bytes

    try:
        payload = read_regular(image, PICTURE_BYTES)
        _check_shows_an_object(picture_from_bytes(payload, str(image)), config, matted=matted, whole=whole)
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


def _check_shows_an_object(rgba: "Tensor", config: ReferenceConfig, *, matted: bool, whole: bool) -> None:
    """Raise PictureError for what the reference stage would refuse."""
    from dreampolish.scene.cutout import CutoutSizes, as_framed, check_whole
    from dreampolish.scene.cutting.users import cut_out, from_background, says_nothing

    if matted and says_nothing(rgba[..., 3]):
        return
    sizes = CutoutSizes(**config.cutout.model_dump())
    rgba = cut_out(rgba, from_background(config.background_tolerance, sizes, config.size)).rgba
    if whole:
        check_whole(rgba[..., 3])
    if config.framing == "as_is":
        as_framed(rgba, config.size)
