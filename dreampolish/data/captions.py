"""Captions in natural order ("a red armchair, side view") from an object's name, tags and category and its dominant colour.

Colours are display-referred sRGB in [0, 1].
"""

import colorsys
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from dreampolish.data.library import CatalogEntry
from dreampolish.data.vocabulary import (
    ADJECTIVES_OF_COLOR,
    COLOR_SYNONYMS,
    HEADS,
    NOUNS,
    PLURALS,
    SYNONYMS,
    TARGET_COLORS,
    WOOD_WORDS,
)
from dreampolish.scene.cameras import view_words

STRAIGHT_FRONT = "straight front view"
"""What captions call a view from straight in front: the pipeline takes its reference to stand there."""
STRAIGHT_AZIMUTH_DEG, STRAIGHT_ELEVATIONS_DEG = 10.0, (0.0, 20.0)
"""Largest azimuth, and elevations, of a view from straight in front, degrees. [choice]"""
FRONT_DEG = 45.0
"""Half the width of the sectors that captions call front and back, degrees (source: DreamFusion)."""
NOUN_SHARE, COLOR_SHARE, SYNONYM_SHARE, VIEW_SHARE = 0.6, 0.9, 0.35, 0.8
"""Shares of captions with the plain noun, the colour, another word for the colour, the view. [choice]"""


def is_straight_front(azimuth_deg: float, elevation_deg: float) -> bool:
    """Whether a view is one from straight in front."""
    folded = (azimuth_deg + 180) % 360 - 180
    low, high = STRAIGHT_ELEVATIONS_DEG
    return abs(folded) <= STRAIGHT_AZIMUTH_DEG and low <= elevation_deg <= high


def noun_from_name(name: str) -> str:
    """The plain noun of a catalogue name: lower case, digits and colour words gone, odd names replaced ("Concept Sedan 02": car)."""
    plain = " ".join(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", re.sub(r"[0-9]+(:[0-9]+)?", " ", name.lower())))
    if plain in NOUNS:
        return NOUNS[plain]
    words = " ".join(word for word in plain.split() if word not in ADJECTIVES_OF_COLOR | WOOD_WORDS)
    return NOUNS.get(words, words) or plain


def is_named_wooden(name: str) -> bool:
    """Whether a catalogue name says that the object is of wood."""
    return bool(WOOD_WORDS & set(name.lower().split()))


def nouns_of_entry(entry: CatalogEntry) -> list[str]:
    """The noun of an object, then other words for it (synonyms, the head of a longer name)."""
    noun = noun_from_name(entry.name)
    found = [noun, *SYNONYMS.get(noun.lower(), ())]
    head = noun.split()[-1]
    if head != noun and head in HEADS:
        found += [head, *SYNONYMS.get(head, ())]
    return list(dict.fromkeys(found))


def color_word(rgb: Sequence[float]) -> str | None:
    """The word for a dominant colour (sRGB in [0, 1]), or None when it lies between two words.

    "wood" stands for the yellowish browns that make furniture look wooden; captions say "wooden".
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*rgb)
    chroma, degrees = max(rgb) - min(rgb), hue * 360
    if max(rgb) < 0.2:
        return "black"
    if chroma < 0.09:
        return "white" if lightness > 0.86 else ("grey" if 0.25 < lightness < 0.8 else None)
    if 14 <= degrees <= 52 and chroma < 0.62:
        if lightness > 0.68:
            return "beige" if saturation < 0.8 else None
        if chroma < 0.6 and max(rgb) < 0.82:
            return "brown"
        return None
    if chroma < 0.2:
        return None
    return _hue_word(degrees, max(rgb), lightness)


def _hue_word(degrees: float, value: float, lightness: float) -> str | None:
    """The word for a saturated hue; between two words None."""
    if degrees < 13 or degrees >= 346:
        return "pink" if lightness > 0.72 else ("red" if value > 0.4 else None)
    spans = (
        (20, 40, "orange"),
        (46, 66, "yellow"),
        (80, 155, "green"),
        (165, 195, "teal"),
        (203, 250, "blue"),
        (260, 295, "purple"),
        (300, 344, "pink"),
    )
    for low, high, word in spans:
        if low <= degrees <= high:
            dark = word in ("orange", "yellow") and value < 0.6
            return None if dark or value < 0.25 else word
    return None


def compose_caption(noun: str, color: str | None, view: str | None) -> str:
    """A caption such as "a red armchair, side view"; plural nouns take no article."""
    words = f"{color} {noun}" if color else noun
    article = "" if noun.split()[-1].lower() in PLURALS else ("an " if words[0].lower() in "aeio" else "a ")
    return f"{article}{words}" + (f", {view}" if view else "")


def _pick(options: Sequence[str], generator: torch.Generator) -> str:
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def random_caption(
    nouns: Sequence[str],
    color: str | None,
    azimuth_deg: float,
    elevation_deg: float,
    generator: torch.Generator,
) -> str:
    """A caption of one picture: mostly the plain noun, else a synonym; the colour nearly always when given; the view mostly."""
    chance = torch.rand(4, generator=generator).tolist()
    noun = nouns[0] if chance[0] < NOUN_SHARE or len(nouns) == 1 else _pick(nouns[1:], generator)
    word = color if chance[1] < COLOR_SHARE else None
    if word in COLOR_SYNONYMS and chance[2] < SYNONYM_SHARE:
        word = _pick(COLOR_SYNONYMS[word], generator)
    view = _view_of(azimuth_deg, elevation_deg) if chance[3] < VIEW_SHARE else None
    return compose_caption(noun, word, view)


def _view_of(azimuth_deg: float, elevation_deg: float) -> str:
    straight = is_straight_front(azimuth_deg, elevation_deg)
    return STRAIGHT_FRONT if straight else view_words(azimuth_deg, elevation_deg, front_deg=FRONT_DEG)


def training_words(nouns: Iterable[Sequence[str]]) -> list[str]:
    """Every word, lower case and sorted, that captions of objects with these nouns can hold."""
    colors = [*TARGET_COLORS, *(word for words in COLOR_SYNONYMS.values() for word in words)]
    phrases = [*(noun for each in nouns for noun in each), *colors, f"{STRAIGHT_FRONT} side back overhead"]
    return sorted({word for phrase in phrases for word in re.findall(r"[^\W\d_]+", phrase.lower())})


def parse_caption(caption: str) -> tuple[str, str]:
    """(noun, colour word or "") of a caption; view words and article are left out."""
    words = caption.split(",")[0].split()
    words = words[1:] if words[0] in ("a", "an") else words
    colors = {*TARGET_COLORS, *(each for synonyms in COLOR_SYNONYMS.values() for each in synonyms)}
    for length in (2, 1):
        color = " ".join(words[:length])
        if color in colors and len(words) > length:
            return " ".join(words[length:]), color
    return " ".join(words), ""


def _canonical_words() -> dict[str, str]:
    """One word for each set of synonyms, nouns and colours."""
    canon: dict[str, str] = {}
    for word, synonyms in [*SYNONYMS.items(), *COLOR_SYNONYMS.items()]:
        name = canon.get(word, word)
        for each in (word, *synonyms):
            canon.setdefault(each, name)
    return canon


@dataclass(frozen=True)
class CaptionKeys:
    """What decides which captions agree, as numbers (N,): the noun up to synonyms, its last word, the colour (-1 for none)."""

    noun: Tensor
    head: Tensor
    color: Tensor

    def __getitem__(self, rows: Tensor) -> "CaptionKeys":
        """The keys of some rows."""
        return CaptionKeys(self.noun[rows], self.head[rows], self.color[rows])


def keys_of_captions(nouns: Sequence[str], colors: Sequence[str]) -> CaptionKeys:
    """Keys of parsed captions; "" as a colour means none."""
    canon = _canonical_words()

    def numbered(words: Sequence[str]) -> Tensor:
        named = [canon.get(word, word) for word in words]
        table = {word: place for place, word in enumerate(dict.fromkeys(named))}
        return torch.tensor([table[word] if word else -1 for word in named])

    return CaptionKeys(numbered(nouns), numbered([noun.split()[-1] for noun in nouns]), numbered(colors))


def positives(keys: CaptionKeys) -> Bool[Tensor, "n n"]:
    """Which captions also fit which pictures: synonymous nouns or the same last word, and colours equal or not both given."""

    def equal(values: Tensor) -> Tensor:
        return values[:, None] == values[None, :]

    plain = keys.color < 0
    return (equal(keys.noun) | equal(keys.head)) & (equal(keys.color) | plain[:, None] | plain[None, :])
