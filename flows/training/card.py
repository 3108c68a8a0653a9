"""The model card of `home`, from the catalogue, the split and the figures of every evaluated part."""

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from dreampolish.data.library import entry_from_fields
from dreampolish.data.split import read_split
from dreampolish.priors.folders.digests import digest

FIGURES = "figures.json"
PARTS = ("autoencoder", "text", "view", "normals", "judge")


def write_card(home: Path, renders: Path, split: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Merge the new figures into `<home>/figures.json` and write the card, `<home>/README.md`, anew."""
    path = home / FIGURES
    known = json.loads(path.read_text()) if path.is_file() else {}
    figures = {**known, **{part: dict(values) for part, values in scores.items()}}
    path.write_text(json.dumps(figures, indent=1) + "\n")
    loader = PackageLoader("flows.training")
    template = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    card = template.get_template("card.md").render(
        figures=figures,
        entries=[entry_from_fields(fields) for fields in json.loads((renders / "objects.json").read_text())],
        split=read_split(split),
        digests={part: digest(home / part) for part in PARTS if (home / part).is_dir()},
    )
    (home / "README.md").write_text(card)
