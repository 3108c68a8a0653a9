"""The commands run, resume, texture, polish and stage. What they do is imported when they do it: their help does not wait for it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.command import Json, Run, Set, finish, resumed_by
from flows.runs.console import say, stage_line, summary
from flows.runs.memory.told import say_plan
from flows.service.temporary_server import load_stages, temporary_server
from stages.runtime.signals import stop_on_signals

if TYPE_CHECKING:
    from flows.runs.given_mesh import GivenMesh
    from flows.runs.inputs import GivenPictures
    from schemas.runs import RunRecord

Vram = Annotated[
    float | None, typer.Option(min=1, help="GiB of CUDA memory to plan for: 8, 12, 16, 24, 48 or 80; else what is free")
]


PICTURE = "FILE[@AZIMUTH[,ELEVATION]]"
Refine = Annotated[
    bool, typer.Option("--refine-poses", help="with several pictures: turn each a little, so that their outlines agree")
]


def run(
    prompt: Annotated[str, typer.Argument(help="one object in a few words, as in: a red armchair")],
    image: Annotated[
        list[str] | None, typer.Option(metavar=PICTURE, help="a picture of the front; again with a pose, of another side")
    ] = None,
    refine_poses: Refine = False,
    init_mesh: Annotated[Path | None, typer.Option(help="a mesh that the shape starts from; it need not be closed")] = None,
    up: Annotated[str | None, typer.Option(help="with --init-mesh: the axis that points up, x, y or z")] = None,
    front: Annotated[float | None, typer.Option(metavar="DEGREES", help="with --init-mesh: azimuth of its front")] = None,
    preset: Annotated[str, typer.Option(help="home, smoke, sd or sd-fast")] = "home",
    overrides: Set = None,
    vram: Vram = None,
    as_json: Json = False,
) -> None:
    """Make a textured 3D asset from a prompt."""

    def work(store: Path) -> dict[str, Any]:
        from flows.runs.given_mesh import GivenMesh
        from schemas.config.presets import ConfigError

        if init_mesh is None and (up is not None or front is not None):
            raise ConfigError("--up and --front say how an --init-mesh FILE stands; there is none")
        given = None if init_mesh is None else GivenMesh(file=init_mesh, use="start", up=up, front_deg=front)
        pictures = _pictures(image, refine=refine_poses)
        record = _new_run(store, prompt, pictures, given=given, preset=preset, overrides=overrides, vram=vram)
        return _continue(record, f"run {record.run}: {record.prompt}")

    finish(work, as_json)


def resume(run: Run, vram: Vram = None, as_json: Json = False) -> None:
    """Continue a stopped run; finished stages are taken from the store."""

    def work(store: Path) -> dict[str, Any]:
        from flows.runs.create import with_plan
        from stages.runtime.records import read_record, write_record

        record = with_plan(read_record(store, run), vram, is_new=False)
        write_record(store, record)
        return _continue(record, f"resuming run {record.run}: {record.prompt}")

    finish(work, as_json)


def texture(
    run: Annotated[str, typer.Argument(metavar="RUN | PROMPT", help="a run's id; with --mesh, what the mesh shows")],
    mesh: Annotated[
        Path | None, typer.Option(help="a mesh of your own: .glb, .gltf, .obj, .ply, .stl, .off, .usd, .usdz")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar=PICTURE, help="with --mesh: how its front is to look; again with a pose, another side"),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="MATERIAL", help="with --mesh: paint one material alone")] = None,
    uv: Annotated[str | None, typer.Option(help="with --mesh: keep its texture coordinates, or new ones; else as fits")] = None,
    strength: Annotated[float | None, typer.Option(help="with --mesh: how far its own colours may change, 0 to 1")] = None,
    up: Annotated[str | None, typer.Option(help="with --mesh: the axis that points up, x, y or z")] = None,
    front: Annotated[float | None, typer.Option(metavar="DEGREES", help="with --mesh: azimuth of its front")] = None,
    preset: Annotated[str, typer.Option(help="with --mesh: home, smoke or sd")] = "home",
    overrides: Set = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="also compute stages whose settings changed")] = False,
    vram: Vram = None,
    as_json: Json = False,
) -> None:
    """Texture and export a run's mesh anew, as a new run; or, with --mesh, a mesh of your own, whose shape stays as it is."""

    def again(store: Path) -> dict[str, Any]:
        from schemas.config.presets import ConfigError, merged
        from stages.runtime.records import read_record

        given = {"--image": image or None, "--only": only, "--uv": uv, "--strength": strength, "--up": up, "--front": front}
        foreign = [name for name, value in given.items() if value is not None]
        if foreign:
            raise ConfigError(f"{foreign[0]} goes with --mesh FILE alone; a run has its own mesh and picture")
        record = read_record(store, run)
        merged(record.config, {}, overrides or [])
        say(f"texturing run {record.run} anew: {record.prompt}")
        with temporary_server(load_stages), stop_on_signals():
            from flows.mesh_to_3d.texture import texture as texture_flow  # the stages are imported while the server boots

            return texture_flow(run=record.run, overrides=overrides or [], refresh=refresh, vram=vram)

    def own(store: Path) -> dict[str, Any]:
        from flows.runs.given_mesh import GivenMesh

        assert mesh is not None
        wanted = GivenMesh(file=mesh, uv=uv, only=only, strength=strength, up=up, front_deg=front)
        pictures = _pictures(image, refine=False)
        record = _new_run(store, run, pictures, given=wanted, preset=preset, overrides=overrides, vram=vram)
        return _continue(record, f"run {record.run}: {mesh.name} as {record.prompt}")

    finish(again if mesh is None else own, as_json)


def polish(
    prompt: Annotated[str | None, typer.Argument(help="what the mesh shows; then it is painted too")] = None,
    mesh: Annotated[Path, typer.Option(help="a mesh of your own: .glb, .gltf, .obj, .ply, .stl, .off, .usd, .usdz")] = ...,  # type: ignore[assignment]
    mend: Annotated[bool, typer.Option("--mend", help="fill holes, turn faces outward, drop crumbs and doubled faces")] = False,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar=PICTURE, help="with a prompt: how its front is to look; again with a pose, another side"),
    ] = None,
    strength: Annotated[float | None, typer.Option(help="with a prompt: how far its own colours may change, 0 to 1")] = None,
    up: Annotated[str | None, typer.Option(help="the axis that points up, x, y or z")] = None,
    front: Annotated[float | None, typer.Option(metavar="DEGREES", help="azimuth of its front")] = None,
    preset: Annotated[str, typer.Option(help="home, smoke or sd")] = "home",
    overrides: Set = None,
    vram: Vram = None,
    as_json: Json = False,
) -> None:
    """Polish the surface of a mesh of your own; with a prompt, paint it too."""

    def work(store: Path) -> dict[str, Any]:
        from flows.runs.given_mesh import GivenMesh
        from flows.runs.inputs import words_of_name
        from schemas.config.presets import ConfigError

        if prompt is None and (image or strength is not None):
            raise ConfigError("--image and --strength say how the mesh is painted; give a prompt too, which says what it shows")
        wanted = GivenMesh(
            file=mesh, use="polish", paint=prompt is not None, mend=mend, strength=strength, up=up, front_deg=front
        )
        words = words_of_name(mesh) if prompt is None else prompt
        pictures = _pictures(image, refine=False)
        record = _new_run(store, words, pictures, given=wanted, preset=preset, overrides=overrides, vram=vram)
        return _continue(record, f"run {record.run}: {mesh.name}" + ("" if prompt is None else f" as {record.prompt}"))

    finish(work, as_json)


def stage(
    name: Annotated[str, typer.Argument(help="intake, reference, nerf, neus, dmtet, polish, texture or export")],
    run: Annotated[str, typer.Option(help="the run whose earlier stages are read")],
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Compute one stage of a run alone."""

    def work(store: Path) -> dict[str, Any]:
        from schemas.config.presets import ConfigError
        from schemas.runs import ALL_STAGES
        from stages.runtime.command import run_one
        from stages.runtime.records import read_record
        from stages.runtime.tracking.journal import place_from_store

        chosen = next((stage for stage in ALL_STAGES if stage == name), None)
        if chosen is None:
            raise ConfigError(f"no stage {name!r}; there are {', '.join(ALL_STAGES)}")
        run_id = read_record(store, run).run
        from flows.runs.chain import CHAIN  # takes seconds, and only this command needs it

        place = place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI"))
        artifact = run_one(CHAIN[chosen], run_id, overrides or [], tracking_uri=place.uri, show_progress=True)
        record = read_record(store, run_id)
        stage_line(record.stages[chosen], artifact.notes)
        return summary(record)

    finish(work, as_json, again="the same command")


def _pictures(image: list[str] | None, *, refine: bool) -> "GivenPictures":
    """The pictures that `--image` names, with the settings that go with them."""
    from flows.runs.inputs import pictures_of
    from schemas.config.presets import ConfigError

    pictures = pictures_of(image or [], Path)
    if not refine:
        return pictures
    if not pictures.others:
        raise ConfigError("--refine-poses compares several pictures; give --image FILE@AZIMUTH[,ELEVATION] too")
    return replace(pictures, settings=(*pictures.settings, "reference.poses.refine=true"))


def _new_run(
    store: Path,
    prompt: str,
    pictures: "GivenPictures",
    *,
    given: "GivenMesh | None",
    preset: str,
    overrides: list[str] | None,
    vram: float | None,
) -> "RunRecord":
    """The record of a new run of a command."""
    from flows.runs.create import new_run

    return new_run(
        store=store,
        prompt=prompt,
        preset=preset,
        overrides=[*pictures.settings, *(overrides or [])],
        image=pictures.front,
        others=pictures.others,
        given=given,
        vram=vram,
    )


def _continue(record: "RunRecord", headline: str) -> dict[str, Any]:
    """Run the whole chain of a run as the Prefect flow."""
    say(headline)
    say_plan(record.plan)
    # Around the flow, so that its report to Prefect is given no more time than the rest.
    with resumed_by(f"dreampolish resume {record.run}"), temporary_server(load_stages), stop_on_signals():
        from flows.text_to_3d import text_to_3d  # the stages are imported while the server boots

        return text_to_3d(prompt=record.prompt, preset=record.config.preset, run=record.run, show_progress=True)
