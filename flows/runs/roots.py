"""The folders that parameters of deployments may name files of. A command's user types paths of their own and may name any."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dreampolish.optim.atomic_files import sha256_of
from schemas.config.presets import ConfigError
from stages.runtime.files import project_file, store_folder

if TYPE_CHECKING:
    from flows.runs.inputs import GivenPictures

OUTPUTS = Path("outputs")
FOLDERS = "DREAMPOLISH_FOLDERS"
"""Environment variable of the folders of `dreampolish up --folder`, joined as in PATH."""
REMEDY = "put it there, or name its folder by `dreampolish up --folder`"


def deployed() -> bool:
    """Whether this is a flow run of a deployment, whose parameters came through Prefect's API."""
    from prefect.runtime import deployment  # commands that call no flow do not wait for Prefect

    return deployment.get_id() is not None


def operators_folders() -> list[Path]:
    """The folders that whoever started the service named."""
    return [Path(each).resolve() for each in os.environ.get(FOLDERS, "").split(os.pathsep) if each]


def under_a_root(path: Path, what: str, *, writing: bool = False) -> Path:
    """A path without links, which lies in the store, outputs/, the project or a folder of the operator's.

    what: the parameter, for the message. writing: then only outputs/, the project's models/ and priors/ and the operator's folders will
    do. Raises ConfigError for one that lies elsewhere, and for the files that hold the service's secret.
    """
    project, store = project_file(".").resolve(), store_folder()
    read_only = [] if writing else [store, project]
    roots = [*read_only, OUTPUTS.resolve(), project / "models", project / "priors", *operators_folders()]
    real = path.resolve()
    secret = real.is_relative_to(store / "services") or real.name == "prefect.toml"
    if secret or not any(real.is_relative_to(root) for root in roots):
        where = "outputs/, models/ and priors/" if writing else "the store, outputs/ and the project"
        raise ConfigError(f"{what} {path} lies outside {where}; {REMEDY}")
    return real


def located(name: Path, what: str) -> Path:
    """A file or folder of a parameter: an absolute path, or one inside the operator's folders or the project, the first there is.

    Raises ConfigError as `under_a_root` does.
    """
    tried = [folder / name for folder in operators_folders()] + [project_file(name)]
    return under_a_root(next((path for path in tried if path.exists()), tried[-1]), what)


def given_picture(store: Path, image: str) -> Path:
    """The picture that a parameter means: by the hash that `dreampolish upload` prints, else by a path under a root.

    Raises ConfigError where it is not there, is not what its hash says, or lies elsewhere.
    """
    return _given(store, image, "image", "picture")


def given_pictures(store: Path, image: str | list[str] | None) -> "GivenPictures":
    """The pictures that a parameter means: `given_picture` of each, which may have @AZIMUTH[,ELEVATION] behind it."""
    from flows.runs.inputs import pictures_of  # torch, which `dreampolish up` does without

    words = [image] if isinstance(image, str) else image or []
    return pictures_of(words, lambda name: given_picture(store, name))


def given_mesh(store: Path, mesh: str) -> Path:
    """The mesh that a parameter means; as `given_picture`."""
    return _given(store, mesh, "mesh", "mesh")


def _given(store: Path, name: str, what: str, word: str) -> Path:
    if re.fullmatch(r"[0-9a-f]{64}", name) is None:
        return located(Path(name), what)
    from stages.runtime.command import brought_input  # torch, which `dreampolish up` does without

    path = brought_input(store, name)
    if not path.is_file() or sha256_of(path) != name:
        raise ConfigError(f"no {word} {name[:12]}... in the store; dreampolish upload FILE puts one there and prints its hash")
    return path
