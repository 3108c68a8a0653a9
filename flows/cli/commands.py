"""The command line `dreampolish`. A user's mistake costs one line and exit code 2; an interruption 130; a fault of ours 1."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import Json, Run, Set, end, finish
from flows.cli.service import register as register_services
from flows.cli.share import register as register_report
from flows.cli.study import register as register_ablate
from schemas.config.presets import ConfigError
from stages.runtime.signals import stop_on_signals

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)
priors = typer.Typer(no_args_is_help=True, help="The embedded priors: their training and its data.")
app.add_typer(priors, name="priors")
register_report(app)
register_ablate(app)
register_services(app)


@app.command()
def run(
    prompt: Annotated[str, typer.Argument(help="one object in a few words, as in: a red armchair")],
    image: Annotated[Path | None, typer.Option(help="a picture of the object's front, in place of a generated one")] = None,
    preset: Annotated[str, typer.Option(help="home, smoke or sd")] = "home",
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Make a textured 3D asset from a prompt."""

    def work(store: Path) -> dict[str, Any]:
        from flows.runs.create import new_run

        record = new_run(store, prompt, preset, overrides or [], image)
        return _continue(record.run, record.prompt, f"run {record.run}: {record.prompt}")

    finish(work, as_json)


@app.command()
def resume(run: Run, as_json: Json = False) -> None:
    """Go on with a run that was stopped; finished stages are taken from the store."""

    def work(store: Path) -> dict[str, Any]:
        from stages.runtime.records import read_record

        record = read_record(store, run)
        return _continue(record.run, record.prompt, f"resuming run {record.run}: {record.prompt}")

    finish(work, as_json)


@app.command()
def texture(
    run: Run,
    overrides: Set = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="also compute stages whose settings changed")] = False,
    as_json: Json = False,
) -> None:
    """Texture and export a run's mesh anew, as a new run; the geometry is reused."""

    def work(store: Path) -> dict[str, Any]:
        from flows.runs.console import say
        from flows.service.temporary_server import load_stages, temporary_server
        from schemas.config.presets import merged
        from stages.runtime.records import read_record

        record = read_record(store, run)
        merged(record.config, {}, overrides or [])
        say(f"texturing run {record.run} anew: {record.prompt}")
        with temporary_server(load_stages), stop_on_signals():
            from flows.texture import texture as texture_flow

            return texture_flow(run=record.run, overrides=overrides or [], refresh=refresh, show_progress=True)

    finish(work, as_json)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="reference, nerf, neus, dmtet, polish, texture or export")],
    run: Annotated[str, typer.Option(help="the run whose earlier stages are read")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Compute one stage of a run alone."""

    def work(store: Path) -> dict[str, Any]:
        from flows.runs.chain import CHAIN
        from flows.runs.console import stage_line, summary
        from schemas.runs import STAGES
        from stages.runtime.command import run_one
        from stages.runtime.records import read_record
        from stages.runtime.tracking import place_from_store

        chosen = next((stage for stage in STAGES if stage == name), None)
        if chosen is None:
            raise ConfigError(f"no stage {name!r}; there are {', '.join(STAGES)}")
        run_id = read_record(store, run).run
        place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
        artifact = run_one(CHAIN[chosen], run_id, overrides or [], tracking_uri=place.uri, show_progress=True)
        record = read_record(store, run_id)
        stage_line(record.stages[chosen], artifact.notes)
        return summary(record)

    finish(work, as_json, again="the same command")


@app.command()
def benchmark(
    objects: Annotated[Path, typer.Option(help="a folder of GLBs")] = Path("benchmark/objects"),
    preset: Annotated[str, typer.Option(help="home, smoke or sd")] = "home",
    overrides: Set = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="this object alone; repeatable")] = None,
    no_prompts: Annotated[bool, typer.Option("--no-prompts", help="objects only")] = False,
    overhead: Annotated[
        int,
        typer.Option(min=0, metavar="PAIRS", help="first measure orchestration: so many runs and plain twins of one prompt"),
    ] = 0,
    rasterizers: Annotated[bool, typer.Option("--rasterizers", help="first measure our rasteriser beside embree")] = False,
    as_json: Json = False,
) -> None:
    """Measure every stage on objects whose true shape is known; writes docs/benchmarks."""
    failures: list[Any] = []

    def work(store: Path) -> dict[str, Any]:
        # Prefect's home lies in the store and is made at import, but not the folders above it.
        store.mkdir(parents=True, exist_ok=True)
        from flows.benchmark.flow import benchmark as benchmark_flow
        from flows.benchmark.overhead import measure_overhead, write_overhead
        from flows.benchmark.subjects import found_subjects, prompts_of
        from flows.service.temporary_server import load_stages, temporary_server

        if overhead or rasterizers:
            found_subjects(objects, only or [], 0.0)  # a wrong folder is told before anything is measured
        if overhead:
            # Before the flow: its own server would compete with what is measured.
            write_overhead(store, measure_overhead(prompts_of(objects)[0], preset, overrides or [], overhead))
        if rasterizers:
            from flows.benchmark.rasterizers import measure_rasterizers, write_rasterizers

            write_rasterizers(store, measure_rasterizers())
        with temporary_server(load_stages):
            result: dict[str, Any] = benchmark_flow(
                objects=objects, preset=preset, overrides=overrides or [], only=only or [], with_prompts=not no_prompts
            )
        failures.extend(result["failures"])
        return result

    finish(work, as_json, again="the same command")
    if failures:
        end(f"{len(failures)} could not be measured, first {failures[0]['name']}: {failures[0]['message']}", 1)


@priors.command("train")
def priors_train(
    parts: Annotated[list[str] | None, typer.Argument(help="autoencoder, text, view, normals, judge; none: all")] = None,
    device: Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N")] = "auto",
    as_json: Json = False,
) -> None:
    """Train the embedded priors on the rendered furniture; a stopped training goes on where it stopped."""

    def work(store: Path) -> dict[str, Any]:
        # As for the benchmark.
        store.mkdir(parents=True, exist_ok=True)
        from flows.service.temporary_server import temporary_server
        from flows.train_priors import ORDER, train_priors

        chosen = [part for part in ORDER if not parts or part in parts]
        unknown = [part for part in parts or [] if part not in ORDER]
        if unknown:
            raise ConfigError(f"no prior {unknown[0]!r}; there are {', '.join(ORDER)}")
        from pydantic import ValidationError

        from schemas.trainings import PriorsTraining

        try:
            settings = PriorsTraining(device=device)
        except ValidationError:
            raise ConfigError(f"{device!r} is no device; use auto, cpu, cuda or cuda:N") from None
        with temporary_server(lambda: None):
            return dict(train_priors(parts=chosen, config=settings))

    finish(work, as_json, again="the same command")


@priors.command("data")
def priors_data(
    libraries: Annotated[
        Path, typer.Argument(help="the folder of the .sh3f files, from the Debian package sweethome3d-furniture")
    ],
    output: Annotated[Path, typer.Option(help="where the renders go")] = Path("data/renders"),
    as_json: Json = False,
) -> None:
    """Render the furniture that the priors are trained on; takes hours, and goes on where it stopped."""

    def work(store: Path) -> dict[str, Any]:
        from dreampolish.data.renders import RenderPlan, render_all

        if not list(libraries.glob("*.sh3f")):
            raise ConfigError(f"no .sh3f files in {libraries}; apt-get download sweethome3d-furniture, then dpkg -x it")
        render_all(libraries, output, RenderPlan(128, 2, views_per_round=(8, 10, 10, 10), stretched_rounds=4))
        return {"output": str(output)}

    finish(work, as_json, again="the same command")


def _continue(run_id: str, prompt: str, headline: str) -> dict[str, Any]:
    """Run the whole chain of a run as the Prefect flow."""
    from flows.runs.console import say
    from flows.service.temporary_server import load_stages, temporary_server

    say(headline)
    # Around the flow, so that its report to Prefect is given no more time than the rest.
    with temporary_server(load_stages), stop_on_signals():
        from flows.text_to_3d import text_to_3d

        return text_to_3d(prompt=prompt, run=run_id, show_progress=True)
