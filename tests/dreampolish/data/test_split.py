"""Near-copies stay on one side; the committed split is what the issue asks for."""

from pathlib import Path

import pytest

from dreampolish.data.library import CatalogEntry
from dreampolish.data.split import RESERVED, draw_split, group_near_copies, normalised_name, read_split

SPLIT = Path(__file__).parents[3] / "configs" / "data" / "split.json"


def entry(identifier: str, name: str) -> CatalogEntry:
    return CatalogEntry(identifier, name, (), "Living room", "CC0-1.0", "", (1.0, 1.0, 1.0), None, "Tiny", "a.obj")


def test_names_lose_digits_and_brackets() -> None:
    assert normalised_name("Chair 02 (blue)") == "chair"
    assert normalised_name("Sofa [2 seats]") == "sofa"


def test_groups_join_names_and_geometries_transitively() -> None:
    names = {"a": "Chair 1", "b": "Chair 2", "c": "Stool", "d": "Lamp"}
    geometries = {"a": "x", "b": "y", "c": "y", "d": "z"}
    assert group_near_copies(names, geometries) == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_draw_keeps_groups_whole_and_holds_reserved_out() -> None:
    entries = [entry(f"e{place}", f"Thing {chr(97 + place % 26)}") for place in range(200)]
    groups = group_near_copies({e.identifier: e.name for e in entries}, {e.identifier: e.identifier for e in entries})
    split = draw_split(entries, groups, ["e3"], ["thing b"], largest_group=100, held_out_fraction=0.3, validation_fraction=0.1)
    side = {identifier: name for name, members in split.items() for identifier in members}
    assert len(side) == 200
    for e in entries:
        assert side[e.identifier] == side[groups[e.identifier]]
    assert side["e3"] == "held_out"
    assert side["e1"] == "train"
    assert len(split["held_out"]) > 20


def test_large_groups_train() -> None:
    entries = [entry(f"e{place}", "Chair") for place in range(5)]
    split = draw_split(
        entries, {e.identifier: "e0" for e in entries}, [], [], largest_group=3, held_out_fraction=1.0, validation_fraction=0.0
    )
    assert len(split["train"]) == 5


def test_committed_split_holds_out_enough_names_and_the_benchmark() -> None:
    split = read_split(SPLIT)
    assert set(RESERVED) <= set(split["held_out"])
    assert len(split["held_out"]) >= 80
    assert len(split["train"]) > 400
    assert len(split["validation"]) > 10


def test_bad_split_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"train": ["a"], "validation": ["a"], "held_out": []}')
    with pytest.raises(ValueError, match="twice"):
        read_split(path)
    path.write_text('{"train": []}')
    with pytest.raises(ValueError, match="expected"):
        read_split(path)
