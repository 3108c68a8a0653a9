"""Where a prior lies: a folder in diffusers layout, or a hub repository pinned to a commit, of which the local cache has a copy.

A folder holds `unet/`, `scheduler/` and either `vae/`, `text_encoder/`, `tokenizer/` beside them, as Stable Diffusion's do, or a
`model_index.json` whose "references" say where a component lies: a path relative to the folder ("../autoencoder") or
"package:NAME/sub/folder" for files that an installed Python package carries.
"""

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_REVISION = re.compile(r"[0-9a-f]{40}")

OTHER_NAMES = {"cc_projection": ("clip_camera_projection",)}
"""Names that a component has in other layouts: Zero123's pose projection as stable-dreamfusion's conversion calls it."""


class PriorError(ValueError):
    """A prior cannot be opened; the message says what, where and what to do, in one line."""


@dataclass(frozen=True)
class PriorSource:
    """Where a prior comes from: an existing folder, or a hub id `owner/name` with its commit as revision."""

    location: str
    revision: str | None

    def folder(self) -> Path:
        """The local folder; for a hub id the copy in the local cache. Nothing is downloaded. PriorError where there is none."""
        path = Path(self.location)
        if path.is_dir():
            return path
        if self.revision is None:
            raise PriorError(
                f"no prior folder at {path.absolute()}: restore it from the repository, or set a hub id with its revision"
            )
        if not _HUB_ID.fullmatch(self.location):
            raise PriorError(f"'{self.location}' is neither a folder nor a hub id of the form owner/name")
        if not _REVISION.fullmatch(self.revision):
            raise PriorError(f"revision '{self.revision}' of {self.location} must be a commit: 40 hexadecimal digits")
        return _cached_snapshot(self.location, self.revision)

    def folder_is_there(self) -> bool:
        """Whether there is a local folder."""
        try:
            return self.folder().is_dir()
        except PriorError:
            return False

    def component(self, name: str) -> Path:
        """The folder of one component. PriorError where there is none."""
        return component_folder(self.folder(), name)

    def has(self, name: str) -> bool:
        """Whether there is such a component."""
        folder = self.folder()
        return any((folder / each).is_dir() for each in _names(name)) or name in references(folder)

    def index(self) -> dict[str, Any]:
        """What `model_index.json` says; empty where there is none."""
        return index_of(self.folder())


@cache
def _cached_snapshot(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        raise PriorError(
            f"{repository} at {revision[:8]} is not in the local hub cache, and a run downloads nothing: "
            f"`dreampolish priors fetch {repository} --revision {revision}` on a machine with a network"
        ) from None


def _names(name: str) -> tuple[str, ...]:
    return (name, *OTHER_NAMES.get(name, ()))


def index_of(folder: Path) -> dict[str, Any]:
    """What a folder's `model_index.json` says; empty where there is none. PriorError where it is no JSON object."""
    return json_object(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file's object. PriorError for a missing file and for anything else."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise PriorError(f"{path} cannot be read ({error.strerror}): the folder is incomplete, fetch it again") from None
    except ValueError:
        raise PriorError(f"{path} is no JSON: it is damaged, fetch it again") from None
    if not isinstance(found, dict):
        raise PriorError(f"{path} holds no JSON object: it is damaged, fetch it again")
    return found


def references(folder: Path) -> dict[str, str]:
    """Components that lie elsewhere, by name."""
    return dict(index_of(folder).get("references", {}))


def component_folder(folder: Path, name: str) -> Path:
    """Where a component of a prior's folder lies, whatever it is called there. PriorError where it does not."""
    for each in _names(name):
        if (folder / each).is_dir():
            return folder / each
    elsewhere = references(folder)
    if name not in elsewhere:
        raise PriorError(f"the prior at {folder.absolute()} has no component '{name}': its folder is incomplete, restore it")
    found = referenced_folder(folder, elsewhere[name])
    if not found.is_dir():
        raise PriorError(f"component '{name}' of {folder.absolute()} should lie at {found}, which does not exist: restore it")
    return found


def referenced_folder(folder: Path, reference: str) -> Path:
    """The folder that a reference of `folder` means. PriorError when it names a package that is not installed."""
    if not reference.startswith("package:"):
        return (folder / reference).resolve()
    package, _, inside = reference.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise PriorError(f"the Python package {package}, which carries part of {folder.name}, is not installed: install it")
    return Path(spec.origin).parent / inside
