"""Describes a folder of procedural objects: python priors/procedural/manifest.py FOLDER writes FOLDER/manifest.jsonl.

Everything is measured from the objects, so that files from elsewhere in the same form may lie beside those that the engine made.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from engine import HERE, Generator, objects_in, read_generators, read_lines

from dreampolish.data.procedural import (
    ManifestEntry,
    brightness,
    extent_of,
    load_object,
    main_color,
    proportion_word,
)

MATERIAL_WORDS = {
    "wooden": r"wood|plywood|bamboo|log",
    "leather": r"leather",
    "fabric": r"fabric|cotton|linen|velvet|knit|quilt|rug|lined|sofa",
    "marble": r"marble",
    "stone": r"stone|granite|concrete|rock",
    "ceramic": r"ceramic|porcelain|clay",
    "glass": r"glass",
    "plastic": r"plastic|rubber",
    "metal": r"metal|steel|chrome|alumin|brass|bronze|iron|copper|hammered",
}
"""Caption words and what the names of their materials hold."""
SAYS_MATERIAL = 0.5
"""Share of the surface from which on a material or a colour is named."""
SAYS_PROPORTION = 1.2
BLACK = 0.06
"""Brightness below which an object came out black."""


def material_word(shares: Mapping[str, float]) -> str | None:
    """The word for the material that covers most of an object, from its materials' names and shares."""
    totals: dict[str, float] = defaultdict(float)
    for name, share in shares.items():
        word = next((word for word, pattern in MATERIAL_WORDS.items() if re.search(pattern, name.lower())), "")
        totals[word] += share
    word, share = max(totals.items(), key=lambda item: item[1], default=("", 0.0))
    return word if word and share >= SAYS_MATERIAL else None


def describe(path: Path, generator: Generator, seed: int, made: Mapping[str, Any] | None) -> ManifestEntry:
    """One object's entry, without its proportions among its kind; made: the worker's answer, where it is known."""
    item = load_object(path)
    black = brightness(item) < BLACK
    return ManifestEntry(
        file=path.name,
        generator=generator.name,
        seed=seed,
        words=generator.words,
        front_deg=generator.front_deg,
        extent_m=tuple(round(length, 4) for length in extent_of(item, generator.front_deg)),  # type: ignore[arg-type]
        color=main_color(item, SAYS_MATERIAL),
        material=material_word(made["materials"]) if made else None,
        proportion=None,
        triangles=len(item.faces),
        seconds=round(sum(made["seconds"].values()), 1) if made else None,
        use=generator.use and seed not in generator.leave_out and not black,
        reason=generator.reason or ("left out by looking" if seed in generator.leave_out else "black" if black else ""),
    )


def with_proportions(entries: list[ManifestEntry]) -> list[ManifestEntry]:
    """The entries with words such as tall, against the median extents of each generator's objects (four at least)."""
    extents = defaultdict(list)
    for entry in entries:
        extents[entry.generator].append(entry.extent_m)
    typical = {name: np.median(found, axis=0) for name, found in extents.items() if len(found) >= 4}
    return [
        replace(entry, proportion=proportion_word(entry.extent_m, typical[entry.generator], SAYS_PROPORTION))
        if entry.generator in typical and entry.front_deg is not None
        else entry
        for entry in entries
    ]


def write_manifest(folder: Path, generators: Mapping[str, Generator]) -> list[ManifestEntry]:
    """Describe every object in folder/objects of a generator that is listed, and write folder/manifest.jsonl."""
    made = {(line["generator"], line["seed"]): line for line in read_lines(folder / "made.jsonl")}
    objects = folder / "objects"
    entries = [
        describe(objects / f"{name}_{seed:04d}.npz", generators[name], seed, made.get((name, seed)))
        for name, seed in sorted(objects_in(objects))
        if name in generators
    ]
    entries = with_proportions(entries)
    temporary = folder / "manifest.jsonl.tmp"
    temporary.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
    temporary.replace(folder / "manifest.jsonl")
    return entries


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Describe a folder of procedural objects.")
    parser.add_argument("folder", type=Path, help="holds objects/ and, where the engine made them, made.jsonl")
    options = parser.parse_args()
    entries = write_manifest(options.folder, read_generators(HERE / "generators.yaml"))
    print(f"{len(entries)} objects, {sum(entry.use for entry in entries)} for use")  # noqa: T201


if __name__ == "__main__":
    main()
