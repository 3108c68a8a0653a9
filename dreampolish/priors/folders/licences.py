"""The licences that a model card names."""

import re
from pathlib import Path

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
_KEY = re.compile(r"^license(?:_name)?:\s*(\S+)\s*$", re.MULTILINE)
_IDENTIFIERS = re.compile(
    r"\b(?:CC0-1\.0|CC-BY(?:-NC)?(?:-SA|-ND)?-\d\.\d(?:-[A-Z]{2})?|Apache-2\.0|MIT|[\w+]*openrail[\w+]*)\b"
)


def licences_of(folder: Path) -> list[str]:
    """What the card of a prior's folder, or else of the folder around it, names; empty without a card."""
    for each in (folder, folder.parent):
        if (each / "README.md").is_file() and (named := licences_in_card((each / "README.md").read_text())):
            return named
    return []


def licences_in_card(text: str) -> list[str]:
    """The licence of a model card's front matter; without one, every licence identifier in its text, sorted."""
    head = _FRONT_MATTER.match(text)
    declared = _KEY.findall(head.group(1)) if head else []
    return declared or sorted(set(_IDENTIFIERS.findall(text)))
