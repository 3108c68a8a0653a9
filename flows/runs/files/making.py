"""What an asset's file says of its making, and the run of this store that made it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreampolish.scene.untrusted.files import MESH_BYTES, RefusedError, read_regular
from dreampolish.scene.untrusted.glb import document_of_glb
from schemas.config.presets import ConfigError
from schemas.runs import RunRecord
from stages.runtime.errors import StageError
from stages.runtime.records import newest_records, read_record


@dataclass(frozen=True)
class Making:
    """prompt, seed, keys of stages and licences of priors, as an export wrote them. run: that made it, where this store has it."""

    prompt: str
    seed: int
    fingerprints: dict[str, str]
    licences: dict[str, str]
    run: RunRecord | None


def making_of(file: Path, store: Path) -> Making:
    """What a GLB says of its making. Raises ConfigError, in one line, for one that says nothing or cannot be read."""
    try:
        document = document_of_glb(read_regular(file, MESH_BYTES))
    except (RefusedError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {error}; give the path of a GLB that DreamPolish wrote") from None
    extras = document.get("asset", {}).get("extras")
    # In a user's own file ours stand beside others.
    told = extras.get("dreampolish", extras) if isinstance(extras, dict) else None
    if not isinstance(told, dict) or not isinstance(told.get("prompt"), str):
        raise ConfigError(f"{file.name} says nothing of its making; give a GLB that DreamPolish wrote")
    prints = _words(told.get("fingerprints"))
    seed = told.get("seed")
    return Making(
        prompt=told["prompt"],
        seed=seed if isinstance(seed, int) else 0,
        fingerprints=prints,
        licences=_words(told.get("licences")),
        run=_maker(store, prints),
    )


def _words(value: Any) -> dict[str, str]:
    return {str(key): str(each) for key, each in value.items()} if isinstance(value, dict) else {}


def _maker(store: Path, prints: dict[str, str]) -> RunRecord | None:
    """The newest run with the same last stage."""
    last = next((name for name in ("export", "texture") if name in prints), None)
    for path in newest_records(store) if last is not None else []:
        try:
            record = read_record(store, path.stem)
        except StageError:
            continue
        entry = {str(name): each for name, each in record.stages.items()}.get(str(last))
        if entry is not None and entry.fingerprint == prints[str(last)]:
            return record
    return None
