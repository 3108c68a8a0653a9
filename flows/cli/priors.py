"""The commands `priors data` and `priors train`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from dreampolish.data.renders import RenderPlan, render_all
from flows.cli.command import Json, finish
from flows.service.temporary_server import temporary_server
from flows.train_priors import ORDER, train_priors
from schemas.config.presets import ConfigError
from schemas.trainings import PriorsTraining
from stages.runtime.files import for_the_user


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
