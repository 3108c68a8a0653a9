"""A pack's objects as dense tensors on a device, and the tables that colours and captions are drawn from.

Notation: N objects, T faces, V vertices (padded with vertex 0), Q colours (0 the object's own), L tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreampolish.training.multiview.pack import VERTEX_UNIT, ObjectInfo, PackInfo, TrainingPack


@dataclass(frozen=True)
class Generator:
    """nouns: the noun and other words for it. recolored: whether other colours are drawn. wooden: whether wood is among them.
    one_paint: whether the whole object takes a new colour, where baked colours are stripes or black."""

    nouns: tuple[str, ...]
    recolored: bool = True
    wooden: bool = False
    one_paint: bool = False


GENERATORS = {
    "ArmChairFactory": Generator(("armchair", "chair", "easy chair")),
    "BarChairFactory": Generator(("bar stool", "stool")),
    "BathtubFactory": Generator(("bathtub", "bath"), one_paint=True),
    "BeverageFridgeFactory": Generator(("beverage fridge", "fridge", "refrigerator")),
    "BookFactory": Generator(("book",), one_paint=True),
    "BottleFactory": Generator(("bottle",), one_paint=True),
    "BowlFactory": Generator(("bowl",), one_paint=True),
    "CanFactory": Generator(("can", "tin can"), one_paint=True),
    "CellShelfFactory": Generator(("shelf", "bookcase", "shelves"), wooden=True, one_paint=True),
    "ChairFactory": Generator(("chair",), wooden=True),
    "CoffeeTableFactory": Generator(("coffee table", "table"), wooden=True),
    "ConchFactory": Generator(("shell", "seashell", "conch"), one_paint=True),
    "CupFactory": Generator(("cup", "mug"), one_paint=True),
    "DeskLampFactory": Generator(("desk lamp", "lamp", "table lamp")),
    "FishFactory": Generator(("fish",), one_paint=True),
    "FloorLampFactory": Generator(("floor lamp", "lamp")),
    "ForkFactory": Generator(("fork",), one_paint=True),
    "FruitFactoryApple": Generator(("apple",)),
    "FruitFactoryPineapple": Generator(("pineapple",), recolored=False),
    "FruitFactoryStrawberry": Generator(("strawberry",), recolored=False),
    "JarFactory": Generator(("jar",)),
    "KnifeFactory": Generator(("knife",), one_paint=True),
    "MicrowaveFactory": Generator(("microwave", "microwave oven")),
    "OfficeChairFactory": Generator(("office chair", "chair", "swivel chair")),
    "OvenFactory": Generator(("oven", "stove")),
    "PanFactory": Generator(("pan", "frying pan")),
    "PlantPotFactory": Generator(("plant pot", "flower pot"), one_paint=True),
    "PlateFactory": Generator(("plate",), one_paint=True),
    "PotFactory": Generator(("pot", "cooking pot"), one_paint=True),
    "SimpleBookcaseFactory": Generator(("bookcase", "bookshelf"), wooden=True, one_paint=True),
    "SimpleDeskFactory": Generator(("desk", "table"), wooden=True, one_paint=True),
    "SingleCabinetFactory": Generator(("cabinet", "cupboard"), wooden=True, one_paint=True),
    "SnakePlantFactory": Generator(("snake plant", "plant"), recolored=False),
    "SofaFactory": Generator(("sofa", "couch", "settee")),
    "SpoonFactory": Generator(("spoon",), one_paint=True),
    "StandingSinkFactory": Generator(("sink", "washbasin")),
    "TVFactory": Generator(("TV", "television")),
    "TableCocktailFactory": Generator(("bar table", "table"), wooden=True),
    "TableDiningFactory": Generator(("dining table", "table"), wooden=True),
    "ToasterFactory": Generator(("toaster",)),
    "ToiletFactory": Generator(("toilet",), one_paint=True),
    "VaseFactory": Generator(("vase",), one_paint=True),
    "WineglassFactory": Generator(("wine glass", "glass"), one_paint=True),
}

HELD_OUT_GENERATORS = frozenset(
    {
        "BarChairFactory",
        "BowlFactory",
        "CellShelfFactory",
        "CoffeeTableFactory",
        "FloorLampFactory",
        "ForkFactory",
        "JarFactory",
        "ToasterFactory",
    }
)
"""Never trained on: for figures on unseen generators."""


MOST_TOKENS = 16
CAPTIONS_PER_COLOR = 10
CLEAR_PAINT = 0.5


@dataclass(frozen=True)
class Meshes:
    """vertices (N, V, 3) int16 in VERTEX_UNIT; faces (N, T, 3) int32; colors (N, T, 3, 4) uint8."""

    vertices: Tensor
    faces: Tensor
    colors: Tensor

    def points(self, places: Tensor) -> Tensor:
        """Vertices (S, V, 3), float, world units, of the given objects."""
        return self.vertices[places].float() * VERTEX_UNIT


@dataclass(frozen=True)
class Tables:
    """Per object: color_logits (N, Q), log of how often each colour is drawn; captions (N, Q, 10), numbers; luminance (N,) of the
    main paint. shades (Q, 3, 3): three targets of each colour, row 0 unused; wooden: the colour whose grain shows. states (C, L, D)
    half, masks (C, L)."""

    color_logits: Tensor
    captions: Tensor
    luminance: Tensor
    shades: Tensor
    wooden: int
    states: Tensor
    masks: Tensor


def dense_meshes(pack: TrainingPack, chosen: list[int], device: torch.device) -> Meshes:
    """The chosen objects' meshes."""
    most_vertices = max(len(pack.meshes[i].vertices) for i in chosen)
    most_faces = max(len(pack.meshes[i].faces) for i in chosen)
    vertices = np.zeros((len(chosen), most_vertices, 3), np.int16)
    faces = np.zeros((len(chosen), most_faces, 3), np.int32)
    colors = np.zeros((len(chosen), most_faces, 3, 4), np.uint8)
    for row, index in enumerate(chosen):
        mesh = pack.meshes[index]
        vertices[row] = mesh.vertices[0]
        vertices[row, : len(mesh.vertices)] = mesh.vertices
        faces[row, : len(mesh.faces)] = mesh.faces
        colors[row, : len(mesh.faces)] = mesh.palette[mesh.corners]
    return Meshes(*(torch.from_numpy(each).to(device) for each in (vertices, faces, colors)))


def tables(pack: TrainingPack, chosen: list[int], device: torch.device) -> Tables:
    """The chosen objects' tables. Two thirds of recolourable objects' pictures take a new colour, wood counting twice."""
    info = pack.info
    wooden = 1 + info.colors.index("wooden")
    weights = torch.zeros(len(chosen), 1 + len(info.colors))
    captions = torch.zeros(len(chosen), 1 + len(info.colors), CAPTIONS_PER_COLOR, dtype=torch.int64)
    for row, index in enumerate(chosen):
        options = info.objects[index].captions
        for color, numbers in enumerate(options):
            if numbers:
                weights[row, color] = 2 if color == wooden else 1
                captions[row, color] = torch.tensor([numbers[i % len(numbers)] for i in range(CAPTIONS_PER_COLOR)])
        others = weights[row, 1:].sum()
        weights[row, 0] = others / 2 if others > 0 else 1
    luminance = torch.tensor([_luminance(info.objects[index]) for index in chosen])
    shades = torch.zeros(1 + len(info.colors), 3, 3)
    for color, targets in enumerate(info.shades):
        shades[1 + color] = torch.tensor([targets[i % len(targets)] for i in range(3)])
    states, masks = caption_tensors(pack)
    return Tables(
        color_logits=weights.log().to(device),
        captions=captions.to(device),
        luminance=luminance.to(device),
        shades=shades.to(device),
        wooden=wooden,
        states=states.to(device),
        masks=masks.to(device),
    )


def _luminance(info: ObjectInfo) -> float:
    red, green, blue = info.paint_rgb
    return 0.299 * red + 0.587 * green + 0.114 * blue


def caption_tensors(pack: TrainingPack) -> tuple[Tensor, Tensor]:
    """Token states (C, L, D) half, zero where there is no token, and masks (C, L); too long captions are cut."""
    lengths = pack.lengths.astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    length = MOST_TOKENS
    states = np.zeros((len(lengths), length, pack.states.shape[1]), np.float16)
    kept = np.minimum(lengths, length)
    rows = np.repeat(np.arange(len(lengths)), kept)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(kept) - kept, kept)
    states[rows, columns] = pack.states[starts[rows] + columns] * pack.scale
    mask = np.arange(length)[None] < kept[:, None]
    return torch.from_numpy(states), torch.from_numpy(mask)


def drawing_weights(info: PackInfo, chosen: list[int], procedural: frozenset[str], share: float) -> Tensor:
    """How often each chosen object is drawn, summing to 1: library objects by emphasis, generators alike, at most `share` together."""
    objects = [info.objects[index] for index in chosen]
    made = torch.tensor([each.source in procedural for each in objects])
    emphasis = torch.tensor([float(each.emphasis) for each in objects])
    counts = {each.source: sum(other.source == each.source for other in objects) for each in objects}
    alike = torch.tensor([1 / counts[each.source] for each in objects])
    weights = torch.where(made, alike, emphasis)
    for part, wanted in ((made, share), (~made, 1 - share)):
        if part.any():
            weights[part] *= (wanted if made.any() and (~made).any() else 1.0) / weights[part].sum()
    return weights
