"""Captions in natural order ("a red armchair, side view") from an object's name, tags and category and its dominant colour.

Colours are display-referred sRGB in [0, 1].
"""

import colorsys
import re
from collections.abc import Sequence

import torch

from dreampolish.cameras import view_words
from dreampolish.data.library import CatalogEntry

NOUNS = {
    "apple ibook": "laptop",
    "apple imac": "computer",
    "apple iphone": "mobile phone",
    "bended coconut tree": "palm tree",
    "blue pine under snow": "snowy pine tree",
    "bullet trash can": "trash can",
    "burlap sofa": "sofa",
    "cctv": "security camera",
    "car model": "toy car",
    "chevrolet": "car",
    "child swing": "swing",
    "children game": "playground slide",
    "clear sofa": "sofa",
    "clothes washing machine": "washing machine",
    "concept sedan": "car",
    "concept sedan sport": "sports car",
    "convertible sofa bz": "sofa",
    "copper beech": "beech tree",
    "cypress": "cypress tree",
    "dart game": "dart board",
    "extinguisher": "fire extinguisher",
    "female": "woman",
    "ficus": "ficus tree",
    "flacon": "perfume bottle",
    "flipper": "pinball machine",
    "ford focus": "car",
    "fork lift": "forklift",
    "holding female": "woman",
    "holding male": "man",
    "island": "kitchen island",
    "island bath": "bathtub",
    "bath": "bathtub",
    "jacuzzi": "hot tub",
    "japanese maple": "maple tree",
    "large fridge": "fridge",
    "lip stick": "lipstick",
    "little bank": "small bench",
    "wood bank": "wooden bench",
    "locked locker": "locker",
    "male": "man",
    "mannequin female": "female mannequin",
    "mannequin male": "male mannequin",
    "mocassin": "shoe",
    "mower": "lawn mower",
    "mp base": "music player",
    "mp station": "music player",
    "oil servers": "oil bottles",
    "osaka chair": "chair",
    "peach blossom": "peach tree",
    "penbox": "pen box",
    "peugeot cc": "car",
    "pine": "pine tree",
    "pine under snow": "snowy pine tree",
    "poplar": "poplar tree",
    "puff": "pouf",
    "punching ball": "punching bag",
    "renault scenic": "car",
    "rigged fan": "fan",
    "ryokan chair": "chair",
    "seat leon": "car",
    "sitting female": "sitting woman",
    "sitting male": "sitting man",
    "smart car": "small car",
    "spathiphyllum": "potted plant",
    "suv": "SUV",
    "sycamore maple": "maple tree",
    "teck chair": "teak chair",
    "toilets unit": "toilet",
    "trunck": "trunk",
    "tv": "TV",
    "vw new beetle": "car",
    "yamaha yzr r": "motorbike",
    "yucca": "yucca plant",
    "acacia": "acacia tree",
    "bamboo": "bamboo plant",
    "bush": "bush",
    "dvd player": "DVD player",
    "playstation": "game console",
    "short": "shorts",
    "stone grill device": "stone grill",
    "tv remote control": "TV remote control",
    "tv stand": "TV stand",
    "woman shoes": "shoes",
    "bootie": "boot",
    "teapot": "teapot",
    "barnum": "tent",
}
"""Nouns for names that are foreign, brands or odd; keys are names without digits."""

SYNONYMS = {
    "sofa": ("couch", "settee"),
    "couch": ("sofa",),
    "car": ("automobile",),
    "sports car": ("car", "automobile"),
    "small car": ("car", "automobile"),
    "suv": ("car", "automobile"),
    "bicycle": ("bike",),
    "bike": ("bicycle",),
    "motorbike": ("motorcycle",),
    "scooter": ("motor scooter",),
    "tv": ("television",),
    "fridge": ("refrigerator",),
    "refrigerator": ("fridge",),
    "wardrobe": ("closet",),
    "bookcase": ("bookshelf",),
    "shelves": ("shelf",),
    "stove": ("cooker",),
    "cooker": ("stove",),
    "trash can": ("garbage can",),
    "dustbin": ("trash can",),
    "desk lamp": ("lamp", "table lamp"),
    "little lamp": ("lamp", "small lamp"),
    "stroller": ("baby carriage",),
    "woman": ("person", "lady"),
    "man": ("person",),
    "boy": ("child",),
    "girl": ("child",),
    "laptop": ("notebook computer",),
    "mobile phone": ("cell phone", "smartphone"),
    "washbasin": ("sink",),
    "grand piano": ("piano",),
    "upright piano": ("piano",),
    "stool": ("seat",),
    "bench": ("seat",),
    "armchair": ("chair", "easy chair"),
    "bed": ("double bed",),
    "bus": ("coach",),
    "truck": ("lorry",),
    "dog": ("puppy",),
    "plant": ("potted plant",),
    "vase": ("flower vase",),
    "mug": ("cup",),
    "indoor plant": ("potted plant", "plant"),
    "city bus": ("bus",),
    "chest": ("box",),
    "cup": ("mug",),
}
"""Other words for a noun; keys in lower case."""

HEADS = frozenset(
    """chair armchair sofa couch table desk bed lamp stool bench bookcase cabinet wardrobe plant tree car truck bus bottle glass
    cup box piano sink oven fan clock vase shelves cat phone camera ladder tent toy""".split()
)
"""Last words of longer names that may stand alone ("oak chair" -> "chair")."""

ADJECTIVES_OF_COLOR = frozenset("black blue red white green yellow brown clear copper grey".split())

_PLURALS = frozenset(
    "apples flowers tulips orchids scissors glasses sunglasses headphones sneakers slippers shoes shorts trousers fries bottles shelves clothes pliers drawers".split()
)


def noun_from_name(name: str) -> str:
    """The plain noun of a catalogue name: lower case, digits and colour words gone, odd names replaced ("Concept Sedan 02": car)."""
    plain = " ".join(re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", re.sub(r"[0-9]+(:[0-9]+)?", " ", name.lower())))
    if plain in NOUNS:
        return NOUNS[plain]
    words = [word for word in plain.split() if word not in ADJECTIVES_OF_COLOR]
    return " ".join(words) or plain


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


TARGET_COLORS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "red": ((0.80, 0.08, 0.08), (0.68, 0.05, 0.10), (0.88, 0.18, 0.14)),
    "orange": ((0.95, 0.50, 0.08), (0.98, 0.58, 0.16)),
    "yellow": ((0.95, 0.83, 0.12), (0.98, 0.90, 0.28)),
    "green": ((0.16, 0.60, 0.20), (0.10, 0.45, 0.16), (0.42, 0.74, 0.26)),
    "teal": ((0.08, 0.60, 0.60), (0.16, 0.74, 0.72)),
    "blue": ((0.10, 0.26, 0.75), (0.18, 0.42, 0.86), (0.08, 0.16, 0.52)),
    "purple": ((0.45, 0.15, 0.65), (0.58, 0.28, 0.78)),
    "pink": ((0.95, 0.55, 0.70), (0.92, 0.36, 0.60)),
    "brown": ((0.42, 0.25, 0.13), (0.52, 0.33, 0.18)),
    "black": ((0.08, 0.08, 0.08), (0.12, 0.12, 0.13)),
    "white": ((0.93, 0.93, 0.92), (0.97, 0.97, 0.97)),
    "grey": ((0.50, 0.50, 0.51), (0.62, 0.62, 0.62)),
    "beige": ((0.86, 0.78, 0.64), (0.80, 0.71, 0.56)),
    "wooden": ((0.62, 0.42, 0.24), (0.70, 0.50, 0.30), (0.48, 0.30, 0.16)),
}
"""Colours that recolouring aims at, by the word that a caption then uses; "wooden" goes with a grain."""

COLOR_SYNONYMS = {"teal": ("cyan", "turquoise"), "purple": ("violet",), "grey": ("gray",), "wooden": ("brown wooden", "brown")}


def compose_caption(noun: str, color: str | None, view: str | None) -> str:
    """A caption such as "a red armchair, side view"; plural nouns take no article."""
    words = f"{color} {noun}" if color and not noun.startswith("wooden") else noun
    article = "" if noun.split()[-1].lower() in _PLURALS else ("an " if words[0].lower() in "aeio" else "a ")
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
    noun = nouns[0] if chance[0] < 0.6 or len(nouns) == 1 else _pick(nouns[1:], generator)
    word = color if chance[1] < 0.9 else None
    if word in COLOR_SYNONYMS and chance[2] < 0.35:
        word = _pick(COLOR_SYNONYMS[word], generator)
    view = view_words(azimuth_deg, elevation_deg, front_deg=45) if chance[3] < 0.7 else None
    return compose_caption(noun, word, view)
