"""Makes a training pack: `python -m dreampolish.training.multiview.packing LIBRARIES OBJECTS SPLIT OUTPUT`.

LIBRARIES: Debian's furniture libraries (data.library); OBJECTS: procedural objects, <generator>_<seed>.npz; SPLIT: configs' split.json.
Condensed meshes are kept in OUTPUT's folder, so that a run goes on where another ended.
"""

import argparse
import json
import logging
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from dreampolish.data.captions import color_word, compose_caption, is_named_wooden, nouns_of_entry
from dreampolish.data.domain import in_domain
from dreampolish.data.library import BOUNDING_RADIUS, CatalogEntry, load_model, read_catalog
from dreampolish.data.raycasting import RayCaster
from dreampolish.data.renders import evaluation_cameras
from dreampolish.data.split import read_split
from dreampolish.data.vocabulary import (
    COLOR_SYNONYMS,
    CORE_WORDS,
    NATURAL_CATEGORIES,
    NATURAL_WORDS,
    TARGET_COLORS,
    WOODEN_WORDS,
)
from dreampolish.training.multiview.condense import SurfaceSamples, condense, sample_colored, sample_painted
from dreampolish.training.multiview.objects import GENERATORS, HELD_OUT_GENERATORS
from dreampolish.training.multiview.pack import (
    CondensedMesh,
    ObjectInfo,
    PackedMesh,
    PackInfo,
    TrainingPack,
    packed_mesh,
    write_pack,
)

log = logging.getLogger(__name__)
SHAPE_FACES, MOST_FACES, PROCEDURAL_SHAPE_FACES, PROCEDURAL_MOST_FACES = 3600, 5000, 3000, 4000
SAMPLES = 60_000
CLEAR_PAINT, MOST_SPREAD = 0.5, 0.12
COLORED_ANIMALS = frozenset({"cat", "dog", "rabbit", "horse", "deer", "fish", "bear", "chicken", "bulldog"})
"""Animals: taught in other colours too, though seldom, so that a word for a colour reaches them."""


@dataclass(frozen=True)
class Candidate:
    """One object before it is packed. colors: words that it is drawn in; own: the word for its own colour; names: nouns."""

    name: str
    source: str
    split: str
    nouns: tuple[str, ...]
    natural: bool
    wooden: bool
    named_wooden: bool
    entry: CatalogEntry | None
    path: str


def library_candidates(libraries: Path, split_file: Path) -> list[Candidate]:
    """The domain's models that the split names."""
    side = {identifier: name for name, each in read_split(split_file).items() for identifier in each}
    found = []
    for entry in filter(in_domain, read_catalog(libraries)):
        if entry.identifier in side:
            nouns = tuple(nouns_of_entry(entry))
            natural = entry.category in NATURAL_CATEGORIES or bool(NATURAL_WORDS & set(nouns[0].lower().split()))
            wooden = bool(WOODEN_WORDS & set(" ".join(nouns).lower().split()))
            named = is_named_wooden(entry.name)
            found.append(
                Candidate(
                    name=entry.identifier,
                    source=entry.library,
                    split=side[entry.identifier],
                    nouns=nouns,
                    natural=natural,
                    wooden=wooden,
                    named_wooden=named,
                    entry=entry,
                    path="",
                )
            )
    return found


def generator_candidates(objects: Path) -> list[Candidate]:
    """The procedural objects of known generators."""
    found = []
    for path in sorted(objects.glob("*.npz")):
        maker = path.stem.rsplit("_", 1)[0]
        if maker in GENERATORS:
            known, side = GENERATORS[maker], "held_out" if maker in HELD_OUT_GENERATORS else "train"
            found.append(
                Candidate(
                    name=path.stem,
                    source=maker,
                    split=side,
                    nouns=known.nouns,
                    natural=not known.recolored,
                    wooden=known.wooden,
                    named_wooden=False,
                    entry=None,
                    path=str(path),
                )
            )
    return found


def condensed(candidate: Candidate, libraries: Path, cache: Path) -> Path | None:
    """The condensed and packed mesh of an object, kept as a file; None when the model cannot be read."""
    kept = cache / f"{zlib.crc32(candidate.name.encode()):08x}.npz"
    if kept.exists():
        return kept
    rng = np.random.default_rng(zlib.crc32(candidate.name.encode()))
    try:
        vertices, faces, samples = _surface(candidate, libraries, rng)
        shape, most = (SHAPE_FACES, MOST_FACES) if candidate.entry else (PROCEDURAL_SHAPE_FACES, PROCEDURAL_MOST_FACES)
        mesh = condense(vertices, faces=faces, samples=samples, shape_faces=shape, max_faces=most)
    except (KeyError, ValueError, IndexError) as problem:
        log.warning("%s left out: %s", candidate.name, problem)
        return None
    looks = measured_looks(mesh)
    packed = packed_mesh(mesh)
    partial = kept.with_suffix(".part.npz")
    np.savez(partial, looks=looks, **asdict(packed))
    partial.rename(kept)
    return kept


def _surface(candidate: Candidate, libraries: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, SurfaceSamples]:
    """Vertices, faces and paint of an object, normalised as the libraries are."""
    if candidate.entry is not None:
        mesh = load_model(candidate.entry, libraries, 1.34 / 256)
        main = RayCaster(mesh).main_paint(evaluation_cameras(48)[:8])
        return mesh.vertices, mesh.faces, sample_painted(mesh, main, SAMPLES, rng)
    found = np.load(candidate.path)
    vertices = found["vertices"].astype(np.float64)
    vertices -= (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    vertices *= BOUNDING_RADIUS / np.linalg.norm(vertices, axis=1).max()
    samples = sample_colored(
        vertices, faces=found["faces"].astype(np.int64), corner_colors=found["colors"] / 255, n=SAMPLES, rng=rng
    )
    if GENERATORS[candidate.source].one_paint:
        values = samples.values.copy()
        values[:, 3] = 1
        samples = replace(samples, values=values)
    return vertices, found["faces"].astype(np.int64), samples


def measured_looks(mesh: CondensedMesh) -> np.ndarray:
    """(5,): mean colour of the main paint over the surface, its share of the surface, and the spread of its colours."""
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    weight = (area[:, None] * mesh.corner_paint).reshape(-1)
    total = max(weight.sum(), 1e-12)
    colors = mesh.corner_colors.reshape(-1, 3)
    mean = (colors * weight[:, None]).sum(axis=0) / total
    spread = (np.abs(colors - mean).mean(axis=1) * weight).sum() / total
    return np.array([*mean, total / max(3 * area.sum(), 1e-12), spread])


def own_color(candidate: Candidate, looks: np.ndarray) -> str | None:
    """The word for an object's own colour where one paint dominates and is nearly plain (data.dataset.RenderedViews.own_color)."""
    red, green, blue, share, spread = looks.tolist()
    if share < CLEAR_PAINT or spread > MOST_SPREAD:
        return None
    word = color_word((red, green, blue))
    warm = red > green > blue and 0.06 < red - blue < 0.62
    grained = spread > 0.02 and candidate.wooden
    brownish = word in ("brown", "beige", None) and (grained or candidate.named_wooden) and warm
    return "wooden" if brownish else word


def color_choices(candidate: Candidate, looks: np.ndarray) -> list[str]:
    """The colours that an object is drawn in besides its own."""
    animal = bool(COLORED_ANIMALS & set(candidate.nouns[0].lower().split()))
    if looks[3] < CLEAR_PAINT or (candidate.natural and not animal):
        return []
    return [word for word in TARGET_COLORS if word != "wooden" or candidate.wooden]


class CaptionTable:
    """Numbers captions as they come; 0 is the empty one."""

    def __init__(self) -> None:
        self.captions: list[str] = [""]
        self._number = {"": 0}

    def number(self, caption: str) -> int:
        """The number of a caption, new ones at the end."""
        if caption not in self._number:
            self._number[caption] = len(self.captions)
            self.captions.append(caption)
        return self._number[caption]

    def options(self, nouns: Sequence[str], color: str | None) -> tuple[int, ...]:
        """Ten captions, one of which is drawn: mostly the plain noun with its colour, sometimes other words, once without colour.

        Other words for colours go with the core domain's nouns alone, so that the table stays small.
        """
        others = list(nouns[1:]) or [nouns[0]]
        core = bool(CORE_WORDS & set(" ".join(nouns).lower().split()))
        words = [color, *(COLOR_SYNONYMS.get(color or "", ()) if core else ())]
        picked = []
        for place in range(10):
            noun = nouns[0] if place < 6 else others[place % len(others)]
            word = None if place == 9 else (words[place % len(words)] if place in (2, 5) else color)
            picked.append(self.number(compose_caption(noun, word, None)))
        return tuple(picked)


def described(candidate: Candidate, looks: np.ndarray, emphasis: int, colors: Sequence[str], table: CaptionTable) -> ObjectInfo:
    """What the pack says of an object."""
    choices = color_choices(candidate, looks)
    captions = [table.options(candidate.nouns, own_color(candidate, looks))]
    captions += [table.options(candidate.nouns, word) if word in choices else () for word in colors]
    kind = candidate.source if candidate.entry is None else candidate.nouns[0].split()[-1].lower()
    red, green, blue, share, spread = (round(float(value), 4) for value in looks)
    return ObjectInfo(
        name=candidate.name,
        source=candidate.source,
        split=candidate.split,
        kind=kind,
        emphasis=emphasis,
        paint_rgb=(red, green, blue),
        share=share,
        spread=spread,
        captions=tuple(captions),
    )


def core_emphasis(nouns: Sequence[Sequence[str]]) -> list[int]:
    """How often each library object is drawn (data.dataset's rule): rare classes of the core domain more often."""
    classes = [next((word for word in reversed(each[0].lower().split()) if word in CORE_WORDS), None) for each in nouns]
    return [1 if each is None else min(max(round(100 / classes.count(each)), 2), 6) for each in classes]


def caption_states(captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MiniLM's token states of captions as int8 rows (sum of lengths, 384), lengths and the scale of each dimension."""
    from dreampolish.priors.folders.loading import load_text_encoder
    from dreampolish.priors.folders.source import PriorSource
    from dreampolish.priors.text.towers import TextTower

    tower = TextTower(*load_text_encoder(PriorSource("priors/home/text", None)))
    rows, lengths = [], []
    for start in range(0, len(captions), 64):
        found = tower.embed(captions[start : start + 64])
        for states, mask in zip(found.states, found.mask, strict=True):
            rows.append(states[mask].numpy())
            lengths.append(int(mask.sum()))
    flat = np.concatenate(rows)
    scale = np.abs(flat).max(axis=0) / 127
    return np.round(flat / scale).astype(np.int8), np.array(lengths), scale


def _load_kept(path: Path) -> tuple[PackedMesh, np.ndarray]:
    with np.load(path) as found:
        return PackedMesh(*(found[key] for key in ("vertices", "faces", "corners", "palette"))), found["looks"]


def make_pack(candidates: Sequence[Candidate], libraries: Path, cache: Path, workers: int) -> TrainingPack:
    """Condense every candidate and describe what could be read."""
    cache.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        kept = list(pool.map(condensed, candidates, [libraries] * len(candidates), [cache] * len(candidates), chunksize=4))
    usable = [(candidate, path) for candidate, path in zip(candidates, kept, strict=True) if path is not None]
    library = [candidate for candidate, _ in usable if candidate.entry is not None and candidate.split == "train"]
    emphasis = dict(zip((c.name for c in library), core_emphasis([c.nouns for c in library]), strict=True))
    table, colors, meshes, objects = CaptionTable(), tuple(TARGET_COLORS), [], []
    for prompt in PROMPTS:  # captions 1, 2, ...
        table.number(prompt)
    for candidate, path in usable:
        mesh, looks = _load_kept(path)
        meshes.append(mesh)
        objects.append(described(candidate, looks=looks, emphasis=emphasis.get(candidate.name, 1), colors=colors, table=table))
    states, lengths, scale = caption_states(table.captions)
    shades = tuple(TARGET_COLORS[word] for word in colors)
    info = PackInfo(tuple(objects), colors, shades, tuple(table.captions))
    return TrainingPack(info=info, meshes=tuple(meshes), states=states, lengths=lengths, scale=scale)


PROMPTS = (
    "a red armchair", "a white bathtub", "a brown bear", "a green cactus in a pot", "a yellow fish", "a blue bottle",
    "a wooden bed", "a black piano", "a blue sofa", "a wooden table", "a red car", "a yellow lamp", "a white toilet",
    "a green vase", "a black office chair", "a pink mug", "a potted plant", "a wooden bookcase", "a grey microwave",
    "a red apple", "a purple desk", "an orange bus", "a white fridge", "a brown dog",
)  # fmt: skip
"""The prompts of the sheet of samples; their states travel with the pack."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make a training pack.")
    for name in ("libraries", "objects", "split", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=None, help="every so many-th object only, for rehearsals")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    candidates = library_candidates(options.libraries, options.split) + generator_candidates(options.objects)
    candidates = candidates[:: options.limit or 1]
    pack = make_pack(candidates, options.libraries, options.output.parent / "condensed", options.workers)
    write_pack(options.output, pack)
    sides = [each.split for each in pack.info.objects]
    log.info("%s: %s", options.output, json.dumps({side: sides.count(side) for side in sorted(set(sides))}))


if __name__ == "__main__":
    main()
