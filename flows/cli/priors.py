"""The commands `priors check`, `fetch`, `convert`, `data` and `train`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from dreampolish.data.renders import RenderPlan, render_all
from dreampolish.priors.folders.contents import Contents
from dreampolish.priors.folders.convert import convert as convert_weights
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.multiview.loading import contents_of_any
from flows.cli.command import Json, Set, finish
from flows.runs.console import answer, say
from flows.runs.create import check_priors
from flows.runs.models.beside import check_as, role_beside
from flows.runs.models.hub import fetch as fetch_model
from flows.runs.models.hub import folder_of, models_of_preset
from flows.service.temporary_server import temporary_server
from flows.training.flow import ORDER, train_priors
from schemas.config.presets import ConfigError, load_config
from schemas.trainings import PriorsTraining
from stages.runtime.files import CONFIGS, for_the_user, project_file


def data(
    libraries: Annotated[
        Path, typer.Argument(help="the folder of the .sh3f files, from the Debian package sweethome3d-furniture")
    ],
    output: Annotated[Path, typer.Option(help="where the renders go")] = Path("data/renders"),
    as_json: Json = False,
) -> None:
    """Render the furniture that the priors are trained on; takes hours, and goes on where it stopped."""

    def work(store: Path) -> dict[str, Any]:
        if not list(libraries.glob("*.sh3f")):
            raise ConfigError(f"no .sh3f files in {libraries}; apt-get download sweethome3d-furniture, then dpkg -x it")
        with for_the_user():
            render_all(libraries, output, RenderPlan(128, 2, views_per_round=(8, 10, 10, 10), stretched_rounds=4))
        return {"output": str(output)}

    finish(work, as_json, again="the same command")


def train(
    parts: Annotated[list[str] | None, typer.Argument(help="autoencoder, text, view, normals, judge; none: all")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N")] = "auto",
    as_json: Json = False,
) -> None:
    """Train the embedded priors on the rendered furniture; a stopped training goes on where it stopped."""

    def work(store: Path) -> dict[str, Any]:

        chosen = [part for part in ORDER if not parts or part in parts]
        unknown = [part for part in parts or [] if part not in ORDER]
        if unknown:
            raise ConfigError(f"no prior {unknown[0]!r}; there are {', '.join(ORDER)}")

        try:
            settings = PriorsTraining(device=device)
        except ValidationError:
            raise ConfigError(f"{device!r} is no device; use auto, cpu, cuda or cuda:N") from None
        with temporary_server(lambda: None):
            return dict(train_priors(parts=chosen, config=settings))

    finish(work, as_json, again="the same command")


def check(
    folders: Annotated[list[Path] | None, typer.Argument(help="folders of models; none: those of the preset")] = None,
    preset: Annotated[str, typer.Option(help="home, smoke, sd or sd-fast")] = "home",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Say what folders of models are, what is missing in them, which licence and memory, and what to type. Loads no weights."""
    wrong: list[str] = []

    def work(store: Path) -> dict[str, Any]:
        config = load_config(preset, CONFIGS, overrides or [])
        places = [str(folder) for folder in folders or ()]
        settings = [
            getattr(config.priors, name) for name in ("text", "view", "views", "normals") if getattr(config.priors, name)
        ]
        sources = [PriorSource(place, None) for place in places] or [
            PriorSource(str(folder if (folder := project_file(each.source)).is_dir() else each.source), each.revision)
            for each in settings
        ]
        told = [_told(source, wrong) for source in sources]
        if not folders and not wrong:
            check_priors(config)
        return {"priors": told}

    finish(work, as_json)
    if wrong:
        raise typer.Exit(1)


def _told(source: PriorSource, wrong: list[str]) -> dict[str, Any]:
    """One line about a folder, or about what is wrong with it, which `wrong` gets too."""
    try:
        beside = role_beside(source.folder())
        if beside is not None:
            check_as(beside, source)
            answer(f"{source.location}: {beside}; --set priors.{beside}.source={source.location}")
            return {"place": source.location, "role": beside}
        found = contents_of_any(source)
    except PriorError as error:
        wrong.append(str(error))
        answer(f"{source.location}: cannot be opened: {error}")
        return {"place": source.location, "problem": str(error)}
    answer(f"{source.location}: {found.role} prior: {found.told()}; --set priors.{found.role}.source={source.location}")
    return {"place": source.location, **_figures(found)}


def _figures(found: Contents) -> dict[str, Any]:
    return {
        "role": found.role,
        "family": found.family,
        "image_size": found.image_size,
        "prediction": found.prediction,
        "parameters": dict(found.parameters),
        "stored_bytes": found.stored_bytes,
        "licences": list(found.licences),
        "float16_gib": round(found.memory_gib(2), 3),
    }


def convert(
    original: Annotated[Path, typer.Argument(help="a folder with .bin files, or Zero123's .ckpt or .safetensors file")],
    output: Annotated[Path, typer.Argument(help="the new folder")],
    pose: Annotated[
        Literal["auto", "distance_change", "reference_elevation"],
        typer.Option(help="the fourth number of a single file's poses; auto: known by its name"),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Turn pickled weights into a folder that can be opened; tensors only, once."""

    def work(store: Path) -> dict[str, Any]:
        try:
            convert_weights(original, output, None if pose == "auto" else pose)
            found = contents_of_any(PriorSource(str(output), None))
        except PriorError as error:
            raise ConfigError(str(error)) from None
        answer(f"{output}: {found.role} prior: {found.told()}; --set priors.{found.role}.source={output}")
        return {"output": str(output), **_figures(found)}

    finish(work, as_json)


def fetch(
    repository: Annotated[str | None, typer.Argument(help="a hub id owner/name; none: the preset's models")] = None,
    preset: Annotated[str, typer.Option(help="sd or sd-fast")] = "sd",
    revision: Annotated[str | None, typer.Option(help="the commit of a hub id")] = None,
    as_json: Json = False,
) -> None:
    """Download the models that a preset names in configs/models.yaml; goes on where it stopped."""

    def work(store: Path) -> dict[str, Any]:
        if repository is not None:
            folder = project_file("models") / repository.partition("/")[2]
            return {"fetched": {str(folder): fetch_model(repository, revision, folder)}}
        entries = models_of_preset(load_config(preset, CONFIGS, []))
        if not entries:
            raise ConfigError(f"the preset {preset} needs no models of the hub")
        fetched = {}
        for entry in entries:
            say(f"{entry.id}: {entry.layout}; {entry.licence}; about {entry.size_gb:g} GB into {folder_of(entry)}")
            fetched[str(folder_of(entry))] = fetch_model(entry.id, entry.revision, folder_of(entry))
        return {"fetched": fetched}

    finish(work, as_json, again="the same command")
