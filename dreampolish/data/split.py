"""The split of the domain into train, validation and held out, by what the objects are called and look like.

Near-copies stay on one side: models whose names agree once digits and brackets are gone, and models of the same geometry
(extents and number of faces, whatever their colours), are one group; a group is never divided. Large groups train, so that
the common classes (chair, table, lamp, sofa, bed) stay taught; the others are drawn in an order fixed by a hash.
The committed file is written by `python -m dreampolish.data.split LIBRARIES OUTPUT`.
"""

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dreampolish.data.library import CatalogEntry, PaintedMesh, load_model

SPLITS = ("train", "validation", "held_out")


def normalised_name(name: str) -> str:
    """The name in lower case without digits, brackets and what stands in brackets."""
    plain = re.sub(r"\(.*?\)|\[.*?\]|[0-9]+", " ", name.lower())
    return " ".join(re.findall(r"[^\W\d_]+", plain))


def geometry_key(mesh: PaintedMesh) -> str:
    """A word that meshes of one shape share, whatever their colours: extents to 2 %, faces, all of the normalised object."""
    extent = mesh.vertices[mesh.faces.reshape(-1)].max(axis=0) - mesh.vertices[mesh.faces.reshape(-1)].min(axis=0)
    return "-".join(str(round(float(side) * 50)) for side in extent) + f"-{len(mesh.faces)}"


def group_near_copies(names: Mapping[str, str], geometries: Mapping[str, str]) -> dict[str, str]:
    """The group of each identifier: connected by an equal normalised name or an equal geometry key.

    names, geometries: by identifier. A group's name is its smallest identifier.
    """
    parent = {identifier: identifier for identifier in names}

    def root(identifier: str) -> str:
        while parent[identifier] != identifier:
            identifier = parent[identifier]
        return identifier

    first: dict[str, str] = {}
    for identifier in sorted(names):
        for key in (f"name {normalised_name(names[identifier])}", f"geometry {geometries[identifier]}"):
            a, b = root(first.setdefault(key, identifier)), root(identifier)
            parent[max(a, b)] = min(a, b)
    return {identifier: root(identifier) for identifier in names}


def draw_split(
    entries: Sequence[CatalogEntry],
    groups: Mapping[str, str],
    reserved: Sequence[str],
    taught_names: Sequence[str],
    largest_group: int,
    held_out_fraction: float,
    validation_fraction: float,
) -> dict[str, list[str]]:
    """Identifiers by split. Groups with a `reserved` member are held out; groups of more than `largest_group` members train,
    so that common classes stay taught; the others go by a hash of the group's name, which no later change of the list moves."""
    sizes = Counter(groups[entry.identifier] for entry in entries)
    kept_out = {groups[identifier] for identifier in reserved}
    taught = {groups[entry.identifier] for entry in entries if normalised_name(entry.name) in taught_names}
    split: dict[str, list[str]] = {name: [] for name in SPLITS}
    for entry in entries:
        group = groups[entry.identifier]
        place = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8
        if group in kept_out:
            side = "held_out"
        elif sizes[group] > largest_group or group in taught:
            side = "train"
        elif place < held_out_fraction:
            side = "held_out"
        else:
            side = "validation" if place < held_out_fraction + validation_fraction else "train"
        split[side].append(entry.identifier)
    return split


def read_split(path: Path) -> dict[str, list[str]]:
    """Identifiers by split from the committed file.

    Raises ValueError when a split is missing or an identifier stands twice.
    """
    split = json.loads(path.read_text())
    if sorted(split) != sorted(SPLITS):
        raise ValueError(f"{path} has the splits {sorted(split)}, expected {sorted(SPLITS)}")
    identifiers = [identifier for side in SPLITS for identifier in split[side]]
    if len(identifiers) != len(set(identifiers)):
        raise ValueError(f"{path} names an object twice")
    return {side: list(split[side]) for side in SPLITS}


RESERVED_TEXT = """
oakChair osakaChair oakTable winchesterSofa winchesterArmchair desklamp forkLift teddyBear caballito barrel cactus potty
refrigerator handbag
"""
RESERVED = tuple(f"Blend Swap CC-0#{name}" for name in RESERVED_TEXT.split())
"""Objects of the benchmark: held out whatever the hash says."""

TAUGHT = ("concept sedan", "peugeot cc", "plant")
"""Normalised names that train whatever the hash says: cars and plants are few and are asked for often."""


def main() -> None:
    """The command: read the libraries' domain, group it and write the split."""
    from dreampolish.data.renders import loadable_entries

    parser = argparse.ArgumentParser(description="Write the split of the domain.")
    parser.add_argument("libraries", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    entries = loadable_entries(options.libraries)
    names = {entry.identifier: entry.name for entry in entries}
    geometries = {entry.identifier: geometry_key(load_model(entry, options.libraries, 0.05)) for entry in entries}
    groups = group_near_copies(names, geometries)
    split = draw_split(entries, groups, RESERVED, TAUGHT, largest_group=3, held_out_fraction=0.2, validation_fraction=0.05)
    options.output.write_text(json.dumps(split, indent=1) + "\n")


if __name__ == "__main__":
    main()
