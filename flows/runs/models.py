"""Models of the hub: which a preset needs, which files of a repository are wanted, and their download."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from flows.runs.create import CONFIGS
from schemas.config.presets import ConfigError
from schemas.config.run import Config
from schemas.models import ModelEntry, ModelList
from stages.runtime.files import project_file

NOTE = "fetched.json"
"""Beside a fetched model's index: its id and commit."""

PLAIN = (".json", ".txt", ".model", ".md")
UNUSED = frozenset({"safety_checker", "feature_extractor", "scheduler_old", "onnx", "openvino", "flax"})
"""Components that no stage opens."""


def known_models() -> tuple[ModelEntry, ...]:
    """configs/models.yaml. Raises ConfigError where it is wrong."""
    path = CONFIGS / "models.yaml"
    try:
        return ModelList.model_validate(yaml.safe_load(path.read_text())).models
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def models_of_preset(config: Config) -> list[ModelEntry]:
    """The listed models that a preset's priors name, in the order text, view, normals."""
    by_folder = {entry.folder: entry for entry in known_models()}
    sources = [
        getattr(config.priors, name).source for name in ("text", "view", "views", "normals") if getattr(config.priors, name)
    ]
    return [by_folder[source] for source in dict.fromkeys(sources) if source in by_folder]


def wanted_files(names: Sequence[str]) -> list[str]:
    """Of a repository's files, those that a prior needs: settings, vocabularies and cards, and of every component one set of weights.

    Whole numbers before halves, safetensors before pickles. Single files beside the components are left out.
    """
    plain = [name for name in names if _is_plain(name)]
    components = sorted({PurePosixPath(name).parent.as_posix() for name in names} - {"."})
    return sorted({*plain, *(each for component in components for each in _weights(component, names))})


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    deep = len(path.parts) > 2 or (len(path.parts) == 2 and path.parts[0] in UNUSED)
    return not deep and (path.suffix in PLAIN or path.name.startswith("LICENSE")) and ".index." not in path.name


def _weights(component: str, names: Sequence[str]) -> list[str]:
    """One variant's files of a component: a single file or shards with their index."""
    if component in UNUSED or "/" in component:
        return []
    inside = [PurePosixPath(name).name for name in names if PurePosixPath(name).parent.as_posix() == component]
    for ending in (".safetensors", ".bin"):
        for variant in ("", ".fp16", ".bf16"):
            found = [name for name in inside if ending in name and _variant(name, ending) == variant]
            if any(name.endswith(ending) for name in found):
                return [f"{component}/{name}" for name in found]
    return []


def _variant(name: str, ending: str) -> str:
    return next((each for each in (".fp16", ".bf16") if each in name.replace(ending, "", 1)), "")


def fetch(repository: str, revision: str | None, folder: Path) -> str:
    """Download a repository's wanted files into a folder, going on where an earlier download stopped; the commit that was taken.

    Raises ConfigError in one line where the network, the repository or its licence is in the way.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi, snapshot_download  # reads the environment when it is imported
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        found = HfApi().model_info(repository, revision=revision or _noted_revision(folder, repository))
        names = [each.rfilename for each in found.siblings or []]
        snapshot_download(repository, revision=found.sha, local_dir=folder, allow_patterns=wanted_files(names))
    except GatedRepoError:
        raise ConfigError(
            f"{repository} asks for its licence to be accepted: do so on its page, then `hf auth login`, and fetch again"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(f"{repository} is not on the hub, or is private; configs/models.yaml can name a mirror") from None
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{repository} was not fetched ({said}); the same command goes on where it stopped") from None
    (folder / NOTE).write_text(json.dumps({"id": repository, "revision": found.sha}) + "\n")
    return str(found.sha)


def _noted_revision(folder: Path, repository: str) -> str | None:
    """The commit that an earlier fetch of the same repository took."""
    if not (folder / NOTE).is_file():
        return None
    noted: dict[str, Any] = json.loads((folder / NOTE).read_text())
    return str(noted["revision"]) if noted.get("id") == repository else None


def folder_of(entry: ModelEntry) -> Path:
    """Where a listed model goes."""
    return project_file(entry.folder)
