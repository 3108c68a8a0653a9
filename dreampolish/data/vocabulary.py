"""Words of the captions: nouns for catalogue names, synonyms, colours, and which objects keep or may take which colour."""

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
    "bank": "bench",
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
    "sofa seats": "sofa",
    "spathiphyllum": "potted plant",
    "suv": "SUV",
    "sycamore maple": "maple tree",
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

_HEADS_TEXT = """
chair armchair sofa couch table desk bed lamp stool bench bookcase cabinet wardrobe plant tree car truck bus
bottle glass cup box piano sink oven fan clock vase shelves cat phone camera ladder tent toy
"""
HEADS = frozenset(_HEADS_TEXT.split())
"""Last words of longer names that may stand alone ("oak chair" -> "chair")."""

ADJECTIVES_OF_COLOR = frozenset({"black", "blue", "red", "white", "green", "yellow", "brown", "clear", "copper", "grey"})

WOOD_WORDS = frozenset({"wooden", "wood", "oak", "teak", "teck", "alder"})
"""Materials in a name that a caption says as a colour ("wooden") instead, since recolouring may change it."""

_PLURAL_TEXT = """
apples flowers tulips orchids scissors glasses sunglasses headphones sneakers slippers shoes shorts trousers
fries bottles shelves clothes pliers tools drawers
"""
PLURALS = frozenset(_PLURAL_TEXT.split())

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
    "beige": ((0.86, 0.78, 0.64), (0.83, 0.75, 0.60)),
    "wooden": ((0.62, 0.42, 0.24), (0.70, 0.50, 0.30), (0.48, 0.30, 0.16)),
}
"""Colours that recolouring aims at, by the word that a caption then uses; "wooden" goes with a grain."""

COLOR_SYNONYMS = {"teal": ("cyan", "turquoise"), "purple": ("violet",), "grey": ("gray",), "wooden": ("brown wooden", "brown")}

NATURAL_CATEGORIES = frozenset({"Characters"})
_NATURAL_WORDS_TEXT = """
tree plant flowers tulips orchids lily bush cactus bamboo hedge rock apples bread butter milk steak hamburger
fries chicken cake hot salad fruits sushi soap sugar snowman acacia deer rabbit cat dog bulldog horse logs
"""
NATURAL_WORDS = frozenset(_NATURAL_WORDS_TEXT.split())
"""Words of nouns whose objects keep their own colours."""

_WOODEN_WORDS_TEXT = """
chair table desk bench stool bookcase shelf shelves cabinet wardrobe cupboard chest crib trunk
dresser swing ladder toy box crate barrel piano tray pallet clock house
"""
WOODEN_WORDS = frozenset(_WOODEN_WORDS_TEXT.split())
"""Words of nouns whose objects may be painted "wooden"."""

_CORE_TEXT = "armchair bed bench bookcase bus cabinet car chair couch desk lamp sofa stool table truck van vase wardrobe"
CORE_WORDS = frozenset(_CORE_TEXT.split())
"""Nouns of the core domain, where people's prompts are expected most: a small prior learns these well first."""
