"""The commands run, resume, texture and stage."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import Json, Run, Set, finish, resumed_by
from flows.runs.console import say, stage_line, summary
from flows.runs.create import new_run
from flows.service.temporary_server import load_stages, temporary_server
from schemas.config.presets import ConfigError, merged
from schemas.runs import STAGES, RunRecord
from stages.runtime.command import run_one
from stages.runtime.records import read_record
from stages.runtime.signals import stop_on_signals
from stages.runtime.tracking.journal import place_from_store


def run(
    prompt: Annotated[str, typer.Argument(help="one object in a few words, as in: a red armchair")],
    image: Annotated[Path | None, typer.Option(help="a picture of the object's front, in place of a generated one")] = None,
    preset: Annotated[str, typer.Option(help="home, smoke, sd or sd-fast")] = "home",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make a textured 3D asset from a prompt."""

    def work(store: Path) -> dict[str, Any]:
        record = new_run(store=store, prompt=prompt, preset=preset, overrides=overrides or [], image=image)
        return _continue(record, f"run {record.run}: {record.prompt}")

    finish(work, as_json)


def resume(run: Run, as_json: Json = False) -> None:
    """Continue a stopped run; finished stages are taken from the store."""

    def work(store: Path) -> dict[str, Any]:
        record = read_record(store, run)
        return _continue(record, f"resuming run {record.run}: {record.prompt}")

    finish(work, as_json)


def texture(
    run: Run,
    overrides: Set = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="also compute stages whose settings changed")] = False,
    as_json: Json = False,
) -> None:
    """Texture and export a run's mesh anew, as a new run; the geometry is reused."""

    def work(store: Path) -> dict[str, Any]:
        record = read_record(store, run)
        merged(record.config, {}, overrides or [])
        say(f"texturing run {record.run} anew: {record.prompt}")
        with temporary_server(load_stages), stop_on_signals():
            from flows.texture import texture as texture_flow  # the stages are imported while the server boots

            return texture_flow(run=record.run, overrides=overrides or [], refresh=refresh, show_progress=True)

    finish(work, as_json)


def stage(
    name: Annotated[str, typer.Argument(help=f"one of {', '.join(STAGES)}")],
    run: Annotated[str, typer.Option(help="the run whose earlier stages are read")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Compute one stage of a run alone."""

    def work(store: Path) -> dict[str, Any]:
        chosen = next((stage for stage in STAGES if stage == name), None)
        if chosen is None:
            raise ConfigError(f"no stage {name!r}; there are {', '.join(STAGES)}")
        run_id = read_record(store, run).run
        from flows.runs.chain import CHAIN  # takes seconds, and only this command needs it

        place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
        artifact = run_one(CHAIN[chosen], run_id, overrides or [], tracking_uri=place.uri, show_progress=True)
        record = read_record(store, run_id)
        stage_line(record.stages[chosen], artifact.notes)
        return summary(record)

    finish(work, as_json, again="the same command")


def _continue(record: RunRecord, headline: str) -> dict[str, Any]:
    """Run the whole chain of a run as the Prefect flow."""
    say(headline)
    # Around the flow, so that its report to Prefect is given no more time than the rest.
    with resumed_by(f"dreampolish resume {record.run}"), temporary_server(load_stages), stop_on_signals():
        from flows.text_to_3d import text_to_3d  # the stages are imported while the server boots

        return text_to_3d(prompt=record.prompt, preset=record.config.preset, run=record.run, show_progress=True)
