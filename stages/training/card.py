"""The model card of `home`, from the catalogue, the split and the figures of every evaluated part."""

import json
from collections.abc import Mapping
from pathlib import Path

from dreampolish.data.library import entry_from_fields
from dreampolish.data.split import read_split
from dreampolish.training.folders import write_card as write

FIGURES = "figures.json"


def write_card(home: Path, renders: Path, split: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Merge the new figures into `<home>/figures.json` and write the card anew."""
    path = home / FIGURES
    known = json.loads(path.read_text()) if path.is_file() else {}
    figures = {**known, **{part: dict(values) for part, values in scores.items()}}
    path.write_text(json.dumps(figures, indent=1) + "\n")
    entries = [entry_from_fields(fields) for fields in json.loads((renders / "objects.json").read_text())]
    write(home, entries, read_split(split), figures)
