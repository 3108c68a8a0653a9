"""What the model cards of a run's priors say of licences, for the files that users hand on."""

import re
from pathlib import Path

from stages.context import RunContext

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
_KEY = re.compile(r"^license(?:_name)?:\s*(\S+)\s*$", re.MULTILINE)
_IDENTIFIERS = re.compile(
    r"\b(?:CC0-1\.0|CC-BY(?:-NC)?(?:-SA|-ND)?-\d\.\d(?:-[A-Z]{2})?|Apache-2\.0|MIT|[\w+]*openrail[\w+]*)\b"
)


def prior_licences(run: RunContext) -> dict[str, str]:
    """For each prior of a run: its source, and the licences that its model card names."""
    settings = {name: getattr(run.priors, name) for name in ("text", "view", "normals")}
    return {name: _told(setting.source, setting.revision, run) for name, setting in settings.items()}


def _told(source: str, revision: str | None, run: RunContext) -> str:
    found = run.prior_folder(source)
    place = source if not Path(source).is_absolute() else Path(source).name
    if isinstance(found, Path):
        for folder in (found, found.parent):
            if (folder / "README.md").is_file() and (named := licences_in_card((folder / "README.md").read_text())):
                return f"{', '.join(named)}; see the model card of {place}"
    return f"see the model card of {place}" + ("" if revision is None else f" at {revision}")


def licences_in_card(text: str) -> list[str]:
    """The licence of a model card's front matter; without one, every licence identifier in its text, sorted."""
    head = _FRONT_MATTER.match(text)
    declared = _KEY.findall(head.group(1)) if head else []
    return declared or sorted(set(_IDENTIFIERS.findall(text)))
