"""The commands up, down, worker, batch, upload and doctor."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import Json, Set, end, finish
from flows.runs.console import answer, say
from flows.service import up as services
from flows.service.backends.attached import serve, service_elsewhere
from flows.service.backends.settings import told_settings
from flows.service.processes import WORDS
from flows.service.secret import USER, export_line, secret_path
from schemas.config.presets import ConfigError
from schemas.config.reference import ReferenceConfig
from stages.runtime.errors import StageError

Folders = Annotated[
    list[Path] | None, typer.Option("--folder", metavar="DIR", help="runs' parameters may name files in it; repeatable")
]


def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="of the Prefect server")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="of the MLflow server")] = 5000,
    watch_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="of the page of runs; without it, 4300 or any that is free")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, max=100_000, help="runs that may go at the same time")] = 1,
    folders: Folders = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="DREAMPOLISH_DATABASE", metavar="URL", help="postgresql://... for Prefect and MLflow; default: SQLite"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a setting of docs/using/scale.md; repeatable")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start Prefect, MLflow and a worker on this machine and register the deployments; what runs already is kept."""

    def work(store: Path) -> dict[str, Any]:
        say(
            "starting what does not run yet of Prefect, MLflow and a worker; the first time takes a minute, on a busy machine several"
        )
        missing = [folder for folder in folders or [] if not folder.is_dir()]
        if missing:
            raise ConfigError(f"no folder {missing[0]}; --folder names one whose files runs may read")
        settings = told_settings(store, database, overrides or [])
        pages = services.up(
            store=store,
            folder=Path.cwd(),
            server_port=port,
            mlflow_port=mlflow_port,
            runs_at_once=at_once,
            readable=folders or (),
            settings=settings,
            watch_port=watch_port,
        )
        for line in pages["crashed"]:
            say(line)
        if not as_json:
            answer(f"Prefect  {pages['prefect']}")
            answer(f"MLflow   {pages['mlflow']}")
            answer(f"Runs     {pages['watch']}")
            where = "in this folder" if pages["settings"] else "once you typed"
            answer(
                f"`prefect deployment run dreampolish/full` reaches this server {where}; elsewhere:"
                if pages["settings"]
                else "this folder has a prefect.toml of its own; for `prefect deployment run` type:"
            )
            answer(f"  {export_line(store, pages['prefect'] + '/api')}")
            answer(f"the pages ask for the secret in {secret_path(store)}: Prefect for its whole line,")
            answer(f"the other two for the user {USER} and, as password, what stands behind the colon")
        return {**pages, "api": f"{pages['prefect']}/api"}

    finish(work, as_json)


def down(as_json: Json = False) -> None:
    """Stop what `up` started; runs that go on write their checkpoints first."""

    def work(store: Path) -> dict[str, Any]:
        stopped = services.down(store)
        if not as_json:
            answer(f"stopped: {', '.join(WORDS[name] for name in stopped)}" if stopped else "nothing was running")
        return {"stopped": list(stopped)}

    finish(work, as_json)


def worker(
    api: Annotated[str, typer.Option("--api", metavar="URL", help="of the Prefect server, as `up` prints it")],
    tracker: Annotated[str | None, typer.Option("--tracker", metavar="URL", help="of the MLflow server")] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", metavar="FILE", help="a copy of <store>/services/secret of the server's machine"),
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, max=1000, help="runs that may go at the same time here")] = 1,
    folders: Folders = None,
) -> None:
    """Serve the runs of a service of another machine, in this folder, until it is stopped; the store has to be shared."""

    def work(store: Path) -> dict[str, Any]:
        service = service_elsewhere(store, api, tracker, secret_file)
        say(f"serving {service.api}; Ctrl-C stops it, its runs write checkpoints first")
        code = serve(store, service, services.run_environment(store, tracker, folders or ()), at_once)
        if code != 0:
            raise StageError(f"the worker ended with {code}", None, "see what it said above")
        return {}

    finish(work, as_json=False, again="the same command")


def batch(
    prompts: Annotated[Path, typer.Argument(help="a text file, one prompt a line; empty lines and # comments are left out")],
    preset: Annotated[str, typer.Option(help="home, smoke, sd or sd-fast")] = "home",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """One run for each prompt of a file, on as many workers as there are; finished ones are skipped when called again."""
    failures: list[Any] = []

    def work(store: Path) -> dict[str, Any]:
        from flows.batch import (
            BatchIncompleteError,
            read_prompts,
            refuse_without_worker,
        )  # Prefect and torch: `up` needs neither
        from flows.batch import batch as batch_flow

        listed = read_prompts(prompts)
        refuse_without_worker()
        try:
            return dict(batch_flow(prompts=listed, preset=preset, overrides=overrides or []))
        except BatchIncompleteError as error:
            failures.append(error)
            return error.result

    finish(work, as_json, again="the same command")
    if failures:
        end(str(failures[0]), 1)


def upload(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="a picture (PNG, JPEG, WebP) or a mesh (GLB, glTF, OBJ, PLY, STL, OFF, USD)")
    ],
    as_json: Json = False,
) -> None:
    """Put a picture or a mesh into the store and print its hash, which deployments take as their parameters `image` and `mesh`."""

    def work(store: Path) -> dict[str, Any]:
        from dreampolish.assets.reading.source import FORMATS  # torch
        from flows.runs.given_mesh import keep_mesh
        from flows.runs.inputs import keep_image

        is_mesh = file.suffix.lower().lstrip(".") in FORMATS
        digest = keep_mesh(store, file, only="").digest if is_mesh else keep_image(store, file, ReferenceConfig())
        if not as_json:
            answer(digest)
        return {"mesh" if is_mesh else "image": digest}

    finish(work, as_json)


def doctor(
    mend: Annotated[bool, typer.Option("--mend", help="also mend what can be mended without loss")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="read the files of all results, not of a sample")] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with this installation, its store and its services, and what mends it; exit code 1 while something is."""
    left: list[Any] = []

    def work(store: Path) -> dict[str, Any]:
        from flows.service.doctor.installation import findings
        from flows.service.doctor.installation import mend as mend_all

        found = findings(store, deep=deep, say=say)
        mended = mend_all(found) if mend else []
        left.extend(findings(store) if mended else found)
        for line in [*(finding.line for finding in found), *mended] or ["nothing is wrong"]:
            answer(line)
        return {"findings": [finding.line for finding in found], "mended": mended}

    finish(work, as_json)
    if left:
        raise typer.Exit(1)
