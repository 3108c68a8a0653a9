"""Batches for the trainings, made from the stored geometry buffers (renders.py) by fresh light and colour each time.

The text prior's pictures stand in the studio's light, the view prior's mostly, the normal prior's in any (lighting.py). Where an
object can be recoloured, two thirds of the pictures are.
All pictures are mirrored with probability 1/2 (a mirrored view at azimuth a is the view at -a of the mirrored object).
All answers are float32; pictures are (n, 3, S, S) in [0, 1] on white, on the device that the views lie on; poses and cameras on
the CPU.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.data.captions import color_word, is_named_wooden, is_straight_front, nouns_of_entry, random_caption
from dreampolish.data.library import CatalogEntry
from dreampolish.data.stored_views import StoredViews, ViewBuffers
from dreampolish.data.vocabulary import CORE_WORDS, NATURAL_CATEGORIES, NATURAL_WORDS, TARGET_COLORS, WOODEN_WORDS
from dreampolish.scene.cameras import pose_condition
from dreampolish.scene.lighting import pair_lighting, random_camera_lighting, studio_camera_lighting
from dreampolish.scene.shading import on_white, recolor, shade, wood_grain

PLAIN_COLORS = tuple(word for word in TARGET_COLORS if word != "wooden")
COLORS_AND_WOOD = (*PLAIN_COLORS, "wooden", "wooden")
"""Colours of objects that may be wooden: wood twice, so that it is drawn twice as often. [choice]"""

REPAINTED_SHARE = 2 / 3
"""Share of pictures of recolourable objects that get a new colour. [choice]"""

TARGET_JITTER = (0.16, 0.04)
"""Widths of the jitter of a new colour's brightness and of each channel. [choice]"""

KEPT_CONTRAST = (0.4, 0.6)
"""Share of its own contrast that a recoloured paint keeps: least and range. [choice]"""

PLAIN_SPREAD, GRAINED_SPREAD = 0.12, 0.02
"""Largest spread of a paint with one colour, and least spread of one with a grain. [choice]"""

WARM_RANGE = (0.06, 0.62)
"""Bounds of red less blue between which a paint may be wood. [choice]"""

LEVEL_ELEVATIONS_DEG, FRONTAL_AZIMUTH_DEG = (-5, 25), 30
"""Elevations of references, and the azimuth up to which they are frontal, degrees. [choice]"""

WIDEST_TEXT_FOV_DEG = 45
"""Widest field of view of the text prior's pictures, degrees. [choice]"""

CORE_EMPHASIS = (3, 8)
"""Bounds of how many times as often as others the core domain's objects are drawn for training (vocabulary.CORE_WORDS). [choice]"""

CORE_DRAWS = 100
"""Draws that a core class's objects get together, in units of one other object: rare classes are drawn more often. [choice]"""

STUDIO_SHARE = 0.7
"""Share of the view prior's pairs in the studio's light, which is the light of the pipeline's own references. [choice]"""

LIT_SHARE = 0.9
"""Share of lit pictures among its other pairs; the rest is nearly flat. [choice]"""

VARIED_LIT_SHARE = 0.5
"""The same for the normal prior, which must read shapes from pictures of both kinds, and for measurements. [choice]"""

ZOOM = (0.92, 1.05)
"""Bounds of the zoom that both pictures of a pair share. [choice]"""

STRAIGHT_TEXT_SHARE = 0.3
"""Share of the text prior's pictures from straight in front: the pipeline's reference is drawn there. [choice]"""

STRAIGHT_SHARE, FRONTAL_SHARE = 0.65, 0.85
"""Shares of view pairs whose reference is from straight in front, and from there or within 30 degrees of it. [choice]"""

MILD_STRETCH = 0.3
"""Logarithm of the largest ratio of two axes' stretches at which a stretched object is drawn for captions. [choice]"""

SEEN_PAINT = 0.3
"""Share of a picture's covered pixels that must show the main paint for a caption to name its colour. [choice]"""

BRIGHTEST = 0.94
"""Bound of the albedo, so that white things stay visible on white. [choice]"""

CLEAR_PAINT = 0.5
"""Share of the covered pixels that the main paint must have for its colour to be the object's colour. [choice]"""


@dataclass(frozen=True)
class ObjectLooks:
    """What an object's colour is: paint_rgb (3,) mean of the main paint, share of the coverage, spread of its luminance."""

    paint_rgb: tuple[float, float, float]
    share: float
    spread: float


@dataclass(frozen=True)
class Repaint:
    """Colour choices of n pictures: words (None: no clear colour), active (n,) bool, target (n, 3), luminance and contrast (n,)."""

    words: list[str | None]
    active: Tensor
    target: Float[Tensor, "n 3"]
    luminance: Float[Tensor, " n"]
    contrast: Float[Tensor, " n"]


class RenderedViews(StoredViews):
    """The views of one split, over every round that is complete when the object is made (or `refresh` is called).

    Stretched objects (renders.py) are for training: other splits show the objects as they are.
    """

    def __init__(self, renders: Path, split_file: Path, split: str, device: torch.device | None = None) -> None:
        """renders: the folder that renders.py wrote. device: where pictures are made; on a GPU the split's buffers lie in its memory
        (None: the CPU, where they stay in the files). Raises FileNotFoundError when no round is complete."""
        super().__init__(renders, split_file, split, device)
        self._nouns = [nouns_of_entry(entry) for entry in self.entries]
        self._natural = [_is_natural(entry, nouns) for entry, nouns in zip(self.entries, self._nouns, strict=True)]
        self._may_be_wooden = [bool(WOODEN_WORDS & set(" ".join(nouns).lower().split())) for nouns in self._nouns]
        self._named_wooden = [is_named_wooden(entry.name) for entry in self.entries]
        self._emphasis = _core_emphasis(self._nouns) if split == "train" else [1] * len(self.entries)
        self.refresh()
        self._looks = [self._measure_looks(place) for place in range(len(self.entries))]

    def refresh(self) -> int:
        """Look for rounds that have been completed since; answers the number of views."""
        found = super().refresh()
        self._index_views()
        return found

    def _index_views(self) -> None:
        """Lists of views by object and shape, for the choices of the batches."""
        folded = (self.azimuth_deg + 180) % 360 - 180
        narrow = np.isclose(self.fov_deg, 20, atol=0.01)
        lowest, highest = LEVEL_ELEVATIONS_DEG
        level = narrow & (self.elevation_deg > lowest) & (self.elevation_deg < highest)
        frontal = level & (np.abs(folded) <= FRONTAL_AZIMUTH_DEG)
        everything = np.arange(len(self.view_objects))
        repeats = np.array(self._emphasis)[self.view_objects]
        angles = zip(folded.tolist(), self.elevation_deg.tolist(), strict=True)
        straight = narrow & np.array([is_straight_front(*each) for each in angles])
        # Captions name usual things: of the stretched shapes only the mild ones, and a view of the object itself counts three times.
        usual = np.where(self.stretch == 0, 3, (self.stretch < MILD_STRETCH).astype(np.int64))
        emphasised = np.repeat(everything, repeats * usual)
        self._text_views = emphasised[self.fov_deg[emphasised] <= WIDEST_TEXT_FOV_DEG]
        self._straight_views = emphasised[straight[emphasised]]
        self._places = np.repeat(np.arange(len(self.entries)), self._emphasis)
        self._narrow_of: list[np.ndarray] = []
        self._level_of: list[np.ndarray] = []
        self._frontal_of: list[np.ndarray] = []
        self._straight_of: list[np.ndarray] = []
        for shape in range(int(self._view_shapes.max()) + 1):
            mine = self._view_shapes == shape
            self._narrow_of.append(everything[mine & narrow])
            self._level_of.append(everything[mine & level])
            self._frontal_of.append(everything[mine & frontal])
            self._straight_of.append(everything[mine & straight])
        self._shapes_of = [np.unique(self._view_shapes[self.view_objects == place]) for place in range(len(self.entries))]

    def _measure_looks(self, place: int) -> ObjectLooks:
        """The colour of an object's main paint over its first views."""
        found = self.load(np.flatnonzero(self.view_objects == place)[:4])
        weight, total = found.paint.sum(), found.coverage.sum().clamp(min=1)
        mean = (found.albedo * found.paint).sum(dim=(0, 2, 3)) / weight.clamp(min=1e-6)
        spread = ((found.albedo - mean[:, None, None]).abs().mean(dim=1, keepdim=True) * found.paint).sum() / weight.clamp(
            min=1
        )
        red, green, blue = mean.tolist()
        return ObjectLooks((red, green, blue), float(weight / total), float(spread))

    def draw_repaint(self, objects: np.ndarray, generator: torch.Generator) -> Repaint:
        """Colours for pictures of the given objects: two thirds of the recolourable get a new one, the others keep theirs."""
        words: list[str | None] = []
        targets: list[tuple[float, float, float]] = []
        for place, chance in zip(objects, torch.rand(len(objects), 3, generator=generator).tolist(), strict=True):
            looks = self._looks[place]
            if looks.share >= CLEAR_PAINT and not self._natural[place] and chance[0] < REPAINTED_SHARE:
                names = COLORS_AND_WOOD if self._may_be_wooden[place] else PLAIN_COLORS
                word = names[int(chance[1] * len(names))]
                shades = TARGET_COLORS[word]
                words.append(word)
                targets.append(shades[int(chance[2] * len(shades))])
            else:
                words.append(self.own_color(int(place)))
                targets.append((-1.0, 0.0, 0.0))
        target = torch.tensor(targets)
        active = target[:, 0] >= 0
        draw = torch.rand(len(objects), 4, generator=generator) - 0.5
        jitter = 1 + TARGET_JITTER[0] * draw[:, :1] + TARGET_JITTER[1] * draw[:, 1:]
        luminance = torch.tensor([_luminance(self._looks[place].paint_rgb) for place in objects])
        contrast = KEPT_CONTRAST[0] + KEPT_CONTRAST[1] * torch.rand(len(objects), generator=generator)
        shade = (target * jitter).clamp(0, 1)
        return Repaint(
            words=words,
            active=active,
            target=shade.to(self.device),
            luminance=luminance.to(self.device),
            contrast=contrast.to(self.device),
        )

    def own_color(self, place: int) -> str | None:
        """The word for an object's own colour where one paint dominates and is nearly plain."""
        looks = self._looks[place]
        if looks.share < CLEAR_PAINT or looks.spread > PLAIN_SPREAD or self._natural[place]:
            return None
        word = color_word(looks.paint_rgb)
        grained = looks.spread > GRAINED_SPREAD and self._may_be_wooden[place]
        return (
            "wooden"
            if word in ("brown", "beige", None) and (grained or self._named_wooden[place]) and _is_warm(looks)
            else word
        )

    def nouns(self, place: int) -> list[str]:
        """The noun of an object and other words for it."""
        return self._nouns[place]

    def _paint(self, views: np.ndarray, found: ViewBuffers, repaint: Repaint, generator: torch.Generator) -> Tensor:
        """The albedo after recolouring, with a grain where the colour is "wooden"."""
        albedo = found.albedo.clone()
        rows = torch.nonzero(repaint.active).flatten()
        if len(rows):
            albedo[rows] = recolor(
                albedo=albedo[rows],
                paint=found.paint[rows],
                target_rgb=repaint.target[rows],
                mean_luminance=repaint.luminance[rows],
                contrast=repaint.contrast[rows],
            )
        wooden = torch.tensor([place for place in rows.tolist() if repaint.words[place] == "wooden"], dtype=torch.int64)
        if len(wooden):
            grain = wood_grain(self.positions_world(views[wooden.numpy()], found.cameras[wooden]), generator)
            albedo[wooden] *= 1 + found.paint[wooden] * (grain - 1)
        return albedo.clamp(0, BRIGHTEST)

    def text_batch(self, n: int, generator: torch.Generator) -> tuple[Float[Tensor, "n 3 s s"], list[str]]:
        """Pictures and their captions."""
        views = self._draw_text_views(n, generator)
        found = self.load(views)
        repaint = self.draw_repaint(self.view_objects[views], generator)
        light = studio_camera_lighting(found.cameras, generator).to(self.device)
        pictures = on_white(self._paint(views, found, repaint, generator) * shade(found.normals, light), found.coverage)
        mirrored = torch.rand(n, generator=generator) < 0.5
        seen = (found.paint.sum(dim=(1, 2, 3)) >= SEEN_PAINT * found.coverage.sum(dim=(1, 2, 3))).tolist()
        captions = [
            random_caption(
                nouns=self._nouns[self.view_objects[view]],
                color=repaint.words[row] if seen[row] else None,
                azimuth_deg=float(self.azimuth_deg[view]),
                elevation_deg=float(self.elevation_deg[view]),
                generator=generator,
            )
            for row, view in enumerate(views)
        ]
        return _mirror(pictures, mirrored), captions

    def _draw_text_views(self, n: int, generator: torch.Generator) -> np.ndarray:
        """Views (n,) for captions: STRAIGHT_TEXT_SHARE of them from straight in front."""
        draw = torch.rand(n, 2, generator=generator).tolist()
        pools = (self._straight_views, self._text_views)
        chosen = [(pools[0] if share < STRAIGHT_TEXT_SHARE and len(pools[0]) else pools[1], place) for share, place in draw]
        return np.array([pool[int(place * len(pool))] for pool, place in chosen])

    def original_pictures(self, views: np.ndarray, generator: torch.Generator) -> Float[Tensor, "n 3 s s"]:
        """The given views (n,) in their own colours under random light; for measurements."""
        found = self.load(views)
        light = random_camera_lighting(found.cameras, VARIED_LIT_SHARE, generator).to(self.device)
        return on_white(found.albedo.clamp(0, BRIGHTEST) * shade(found.normals, light), found.coverage)

    def view_batch(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 3 s s"], Float[Tensor, "n 4"]]:
        """Reference, target and pose (cameras.pose_condition relative to the reference) of n objects, all at FOV 20.

        The reference lies at elevation -5..25, mostly straight in front (STRAIGHT_SHARE, FRONTAL_SHARE). Both pictures share
        light and zoom.
        """
        chosen = [self._draw_pair(draw) for draw in torch.rand(n, 5, generator=generator).tolist()]
        views = np.array([pair[0] for pair in chosen] + [pair[1] for pair in chosen])
        found = self.load(views)
        repaint = _twice(self.draw_repaint(self.view_objects[views[:n]], generator))
        light = pair_lighting(found.cameras, STUDIO_SHARE, LIT_SHARE, generator).to(self.device)
        grain = torch.Generator().manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        albedo = self._paint_pairs(views, found, repaint, grain)
        pictures = on_white(albedo * shade(found.normals, light), found.coverage)
        zoom = (ZOOM[0] + (ZOOM[1] - ZOOM[0]) * torch.rand(n, generator=generator)).repeat(2)
        mirrored = torch.rand(n, generator=generator) < 0.5
        pictures = _mirror(_zoomed(pictures, zoom), mirrored.repeat(2))
        change = torch.from_numpy(self.azimuth_deg[views[n:]] - self.azimuth_deg[views[:n]])
        rise = torch.from_numpy(self.elevation_deg[views[n:]] - self.elevation_deg[views[:n]])
        pose = pose_condition(torch.where(mirrored, -change, change), rise, reference_elevation_deg=0.0)
        return pictures[:n], pictures[n:], pose

    def _draw_pair(self, draw: list[float]) -> tuple[int, int]:
        """A reference view and a target view of one object in one shape; draw: five numbers, uniform in [0, 1)."""
        shapes = self._shapes_of[int(self._places[int(draw[0] * len(self._places))])]
        shape = int(shapes[int(draw[4] * len(shapes))])
        wider = self._frontal_of[shape] if draw[1] < FRONTAL_SHARE else self._level_of[shape]
        pools = (self._straight_of[shape] if draw[1] < STRAIGHT_SHARE else wider, wider, self._narrow_of[shape])
        pool = next(pool for pool in pools if len(pool))
        targets = self._narrow_of[shape]
        return int(pool[int(draw[2] * len(pool))]), int(targets[int(draw[3] * len(targets))])

    def _paint_pairs(self, views: np.ndarray, found: ViewBuffers, repaint: Repaint, generator: torch.Generator) -> Tensor:
        """Recolouring of pairs (references, then targets) with the same grain on both halves."""
        n, seed = len(views) // 2, generator.initial_seed()
        halves = []
        for part in (slice(0, n), slice(n, 2 * n)):
            piece = ViewBuffers(
                albedo=found.albedo[part],
                normals=found.normals[part],
                coverage=found.coverage[part],
                paint=found.paint[part],
                cameras=found.cameras[part],
            )
            mine = Repaint(
                words=repaint.words[part],
                active=repaint.active[part],
                target=repaint.target[part],
                luminance=repaint.luminance[part],
                contrast=repaint.contrast[part],
            )
            halves.append(self._paint(views[part], piece, mine, torch.Generator().manual_seed(seed)))
        return torch.cat(halves)

    def normal_batch(
        self, n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 3 s s"], Float[Tensor, "n 1 s s"]]:
        """Pictures, unit camera-frame normals and the mask (1 where coverage > 1/2), over all FOVs and elevations.

        The background's normal is (0, 0, 1), as if a wall faced the viewer.
        """
        views = torch.randint(len(self.view_objects), (n,), generator=generator).numpy()
        found = self.load(views)
        repaint = self.draw_repaint(self.view_objects[views], generator)
        light = random_camera_lighting(found.cameras, VARIED_LIT_SHARE, generator).to(self.device)
        pictures = on_white(self._paint(views, found, repaint, generator) * shade(found.normals, light), found.coverage)
        mask = (found.coverage > 0.5).float()
        facing = found.normals.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
        normals = torch.nn.functional.normalize(torch.where(mask > 0, found.normals, facing), dim=1)
        mirrored = torch.rand(n, generator=generator) < 0.5
        turned = torch.where(mirrored, -1.0, 1.0).to(self.device)
        normals = _mirror(normals, mirrored)
        normals[:, 0] *= turned[:, None, None]
        return _mirror(pictures, mirrored), normals, _mirror(mask, mirrored)


def _core_emphasis(nouns: list[list[str]]) -> list[int]:
    """How often each object is drawn: 1, but in the core domain CORE_DRAWS over the size of its class, within CORE_EMPHASIS."""
    classes = [next((word for word in reversed(each[0].lower().split()) if word in CORE_WORDS), None) for each in nouns]
    sizes, (low, high) = Counter(classes), CORE_EMPHASIS
    return [1 if each is None else min(max(round(CORE_DRAWS / sizes[each]), low), high) for each in classes]


def _is_natural(entry: CatalogEntry, nouns: list[str]) -> bool:
    """Whether an object has colours of its own kind: people, animals, plants, food."""
    return entry.category in NATURAL_CATEGORIES or bool(NATURAL_WORDS & set(nouns[0].lower().split()))


def _is_warm(looks: ObjectLooks) -> bool:
    """Whether a paint's mean colour could be wood: red over green over blue, not vivid."""
    red, green, blue = looks.paint_rgb
    return red > green > blue and WARM_RANGE[0] < red - blue < WARM_RANGE[1]


def _luminance(rgb: tuple[float, float, float]) -> float:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _twice(repaint: Repaint) -> Repaint:
    """The same colours for references and targets."""
    return Repaint(
        words=repaint.words * 2,
        active=repaint.active.repeat(2),
        target=repaint.target.repeat(2, 1),
        luminance=repaint.luminance.repeat(2),
        contrast=repaint.contrast.repeat(2),
    )


def _mirror(pictures: Tensor, mirrored: Tensor) -> Tensor:
    """The chosen ones of pictures (n, c, h, w) flipped left to right."""
    return torch.where(mirrored.to(pictures.device)[:, None, None, None], pictures.flip(-1), pictures)


def _zoomed(pictures: Tensor, zoom: Tensor) -> Tensor:
    """Pictures magnified about their centres, white outside."""
    size = pictures.shape[-1]
    centres = (torch.arange(size, device=pictures.device) + 0.5) / size * 2 - 1
    base = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1)
    places = base / zoom.to(pictures.device).view(-1, 1, 1, 1)
    ink = torch.nn.functional.grid_sample(1 - pictures, places, mode="bilinear", align_corners=False)
    return ink.neg_().add_(1)
