"""The priors in MLflow's registry of models: a version for each content, told apart by its digest; an alias names the one in use.

The weights are not copied: a version's run holds the card, the configs and the sample sheets, its tags say where the weights lie. No
signature is given: these are parts of a pipeline, which MLflow is not to serve. Registering twice changes nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreampolish.priors.folders.digests import digest
from stages.runtime.tracking.journal import Place, experiment_id, tracker_client
from stages.runtime.tracking.relocatable import Keep, keeper

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "dreampolish-"
"""Of a model's name: `dreampolish-text`."""
DIGEST_TAG, PLACE_TAG = "sha256", "folder"
WORDS: Mapping[str, str] = {
    "text": "Text prior: from a prompt to pictures, by latent diffusion.",
    "view": "View prior: from the reference picture to other views.",
    "normals": "Normal prior: from a picture to its normals.",
    "judge": "Image-text judge: chooses the reference and measures `alignment`.",
    "autoencoder": "The autoencoder that the three diffusion priors share.",
}
"""What each prior is, by the name of its folder."""
MOST_BYTES = 4_000_000
"""Of a card, config or picture that is kept beside a version."""
SHOWN = ("*.json", "*.md", "*.png", "*.jpg", "*/*.json")


@dataclass(frozen=True)
class Registered:
    """A model's version. is_new: made by this call. replaces: the digest that the alias named before; None for the first one."""

    name: str
    version: str
    digest: str
    is_new: bool
    replaces: str | None


def register_priors(place: Place, home: Path, alias: str, shown: str) -> list[Registered]:
    """Give every prior in a folder a version, unless its content has one, and let the alias name it.

    shown: how the folder is called on the pages. Raises what MLflow raises, and PriorError for a folder that lacks a component.
    """
    folders = [home / part for part in WORDS if (home / part).is_dir()]
    client = tracker_client(place)
    digests = {folder.name: digest(folder) for folder in folders}
    known = {part: _versions(client, part) for part in digests}
    missing = [folder for folder in folders if digests[folder.name] not in known[folder.name]]
    run = _run_of(client, place, home=home, digests=digests, alias=alias) if missing else ""
    for folder in missing:
        tags = {DIGEST_TAG: digests[folder.name], PLACE_TAG: f"{shown}/{folder.name}", "bytes": str(_size(folder))}
        _keep_shown(keeper(client, run, place.artifacts), folder)
        made = client.create_model_version(
            f"{PREFIX}{folder.name}",
            source=f"runs:/{run}/{folder.name}",
            run_id=run,
            tags=tags,
            description=f"The weights lie in `{shown}/{folder.name}`.",
        )
        known[folder.name][digests[folder.name]] = str(made.version)
    made_now = {folder.name for folder in missing}
    return [
        _named(client, part, alias, versions=known[part], wanted=digests[part], is_new=part in made_now) for part in digests
    ]


def _versions(client: "MlflowClient", part: str) -> dict[str, str]:
    """The versions of a model by digest; a model that is not there yet is made."""
    name = f"{PREFIX}{part}"
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name, description=WORDS[part])
    return {entry.tags.get(DIGEST_TAG, ""): str(entry.version) for entry in client.search_model_versions(f"name = '{name}'")}


def _named(
    client: "MlflowClient", part: str, alias: str, versions: Mapping[str, str], wanted: str, *, is_new: bool
) -> Registered:
    """Let the alias name the version with the wanted digest."""
    name = f"{PREFIX}{part}"
    aliased = client.get_registered_model(name).aliases.get(alias)
    before = None if aliased is None else str(aliased)
    if before != versions[wanted]:
        client.set_registered_model_alias(name, alias, versions[wanted])
    replaced = next((each for each, version in versions.items() if version == before), None)
    return Registered(
        name=name,
        version=versions[wanted],
        digest=wanted,
        is_new=is_new,
        replaces=None if replaced == wanted else replaced,
    )


def _run_of(client: "MlflowClient", place: Place, home: Path, digests: Mapping[str, str], alias: str) -> str:
    """The run that new versions hang on, with the priors' held-out figures; the one of an interrupted call is taken again."""
    from mlflow.entities import ViewType

    experiment, key = experiment_id(client, place), json.dumps(digests, sort_keys=True)
    found: Sequence[Any] = client.search_runs(
        [experiment], f"tags.`dreampolish.priors` = '{key}'", ViewType.ACTIVE_ONLY, max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    tags = {"mlflow.runName": f"priors {alias}", "dreampolish.priors": key}
    run = str(client.create_run(experiment, tags=tags).info.run_id)
    for part, figures in _figures(home).items():
        for name, value in figures.items():
            client.log_metric(run, f"final/{part}/{name}", float(value))
    _keep_files(keeper(client, run, place.artifacts), [path for path in sorted(home.glob("*.*")) if path.is_file()], "")
    client.set_terminated(run)
    return run


def _figures(home: Path) -> Mapping[str, Mapping[str, float]]:
    """The held-out figures of figures.json; none where there is no such file."""
    path = home / "figures.json"
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _keep_shown(keep: Keep, folder: Path) -> None:
    """Configs, cards and sample sheets of a prior, beside its version."""
    for pattern in SHOWN:
        for path in sorted(folder.glob(pattern)):
            inside = path.parent.relative_to(folder.parent).as_posix()
            _keep_files(keep, [path], inside)


def _keep_files(keep: Keep, paths: Sequence[Path], inside: str) -> None:
    for path in paths:
        if path.stat().st_size <= MOST_BYTES:
            keep(path, inside)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
