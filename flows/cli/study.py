"""The commands ablate, studies, bench, benchmark and rehearse."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dreampolish.priors.rehearsal.architectures import Family
from flows.ablation import flow as ablation_flow
from flows.ablation.document import write_page
from flows.ablation.plan import Plan, found_study, planned
from flows.benchmark import flow as benchmark_flow
from flows.benchmark.overhead import measure_overhead, write_overhead
from flows.benchmark.performance.counted import SUSTAINED_TFLOPS, counted, counted_figures, counted_table
from flows.benchmark.performance.rehearsal import Width, device_words, figures, table
from flows.benchmark.performance.rehearsal import rehearse as rehearsed
from flows.benchmark.rasterizers import measure_rasterizers, write_rasterizers
from flows.benchmark.subjects import found_subjects, objects_folder, prompts_of
from flows.cli.command import Json, Set, end, finish
from flows.runs.console import answer, say
from flows.service.temporary_server import load_stages, temporary_server
from stages.runtime.files import for_the_user

Study = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="a study, or the name of one in configs/ablations")]
Preset = Annotated[str | None, typer.Option(help="in place of the study's own preset")]
Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="output folders of studies, in the page's order")]


def ablate(
    study: Study,
    preset: Preset = None,
    overrides: Set = None,
    plan: Annotated[bool, typer.Option("--plan", help="check the study and tell its cells, without running any")] = False,
    as_json: Json = False,
) -> None:
    """Run a study: the same subjects and seeds under several settings, compared in tables, pictures and at the tracker.

    What is computed already is taken from the store, so the same command goes on with a stopped study.
    """
    failures: list[dict[str, str]] = []

    def work(store: Path) -> dict[str, Any]:
        found = found_study(study)
        checked = planned(found, store, preset, overrides or [])
        if plan:
            return _show_plan(checked)

        say(f"study {checked.title}: {len(checked.cells)} cells, at most {checked.stage_computations()} stages to compute")

        with temporary_server(load_stages):
            result: dict[str, Any] = ablation_flow.ablation(
                study=found, preset=preset, overrides=overrides or [], show_progress=True
            )
        failures.extend(result["failures"])
        return result

    finish(work, as_json, again="the same command")
    if failures:
        end(f"{len(failures)} cells failed, first {failures[0]['cell']}: {failures[0]['message']}", 1)


def studies(
    folders: Folders,
    output: Annotated[Path, typer.Option(help="the page; pictures go beside it")] = Path("docs/studies/index.md"),
    as_json: Json = False,
) -> None:
    """Write docs/studies from the results of studies."""

    def work(store: Path) -> dict[str, Any]:
        return {"output": str(write_page(folders, output).resolve())}

    finish(work, as_json)


def benchmark(
    objects: Annotated[Path, typer.Option(help="a folder of GLBs")] = Path("benchmark/objects"),
    preset: Annotated[str, typer.Option(help="home, smoke, sd or sd-fast")] = "home",
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
        folder = objects_folder(objects)
        if overhead or rasterizers:
            found_subjects(folder, only or [], 0.0)  # a wrong folder is told before anything is measured
        store.mkdir(parents=True, exist_ok=True)
        if overhead:
            # Before the flow: its own server would compete with what is measured.
            write_overhead(store, measure_overhead(prompts_of(folder)[0], preset, overrides or [], overhead))
        if rasterizers:
            write_rasterizers(store, measure_rasterizers())
        with temporary_server(load_stages):
            result: dict[str, Any] = benchmark_flow.benchmark(
                objects=folder, preset=preset, overrides=overrides or [], only=only or [], with_prompts=not no_prompts
            )
        failures.extend(result["failures"])
        return result

    finish(work, as_json, again="the same command")
    if failures:
        end(f"{len(failures)} could not be measured, first {failures[0]['name']}: {failures[0]['message']}", 1)


def bench(
    prompt: Annotated[str, typer.Option(help="of the run whose stages are timed")] = "a red armchair",
    preset: Annotated[str, typer.Option(help="home or smoke")] = "home",
    overrides: Set = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="of every comparison")] = 9,
    no_run: Annotated[bool, typer.Option("--no-run", help="operations only, no run")] = False,
    as_json: Json = False,
) -> None:
    """Measure the engine beside other ways of doing the same, and a run's stages; writes docs/benchmarks/performance.md."""

    def work(store: Path) -> dict[str, Any]:
        import torch

        from flows.benchmark.performance.operations import compared, grown
        from flows.benchmark.performance.page import page_text, write_performance
        from flows.benchmark.performance.run import measured_run
        from stages.runtime.context import device_from_name, threads_from_setting

        place, threads = device_from_name(device), threads_from_setting("auto")
        torch.set_num_threads(threads)
        say(f"comparing operations on {place.type}, {rounds} rounds each")
        comparisons, growths = compared(place, rounds), grown(place, rounds)
        say("timing a run of all stages" if not no_run else "no run is timed")
        stages = [] if no_run else measured_run(prompt, preset, [f"device={device}", *(overrides or [])])
        timed = "" if no_run else f"; the run: `{preset}`, `{prompt}`"
        setting = f"{threads} threads, {rounds} rounds{timed}."
        page = write_performance(
            page_text(comparisons=comparisons, growths=growths, stages=stages, device=device, setting=setting)
        )
        return {"output": str(page.resolve())}

    finish(work, as_json, again="the same command")


def rehearse(
    preset: Annotated[str, typer.Option(help="sd or sd-fast")] = "sd",
    width: Annotated[Width, typer.Option(help="of the networks; tiny runs on two CPU cores")] = "full",
    text: Annotated[Family, typer.Option(help="the text prior: 2.1, SDXL, 3.5-medium without T5")] = "sd",
    steps: Annotated[int, typer.Option(min=4, help="of each stage")] = 10,
    vram: Annotated[float | None, typer.Option(min=1, help="GiB of CUDA memory to plan for; else what is free")] = None,
    count: Annotated[
        bool, typer.Option("--count", help="do no step: count operations and memory, for --vram, else 24")
    ] = False,
    tflops: Annotated[
        float, typer.Option(min=0.1, help="with --count: 10^12 operations a second of the card")
    ] = SUSTAINED_TFLOPS,
    document: Annotated[Path | None, typer.Option(metavar="FILE", help="write the table to this file as well")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Rehearse a preset on real architectures with random weights: time and memory of every stage, and of a whole run."""

    def work(store: Path) -> dict[str, Any]:
        if count:
            return _counted(preset, overrides or [], width, text, vram=vram or 24.0, tflops=tflops, document=document)
        found = rehearsed(preset=preset, overrides=overrides or [], width=width, family=text, steps=steps, vram=vram)
        where = device_words("cuda" if any(each.peak_gib for each in found) else "cpu")
        lines = [
            f"`{preset}`, networks of {width} width, text prior {text}, {steps} steps a stage, on {where}.",
            "",
            *table(found),
        ]
        _write(lines, document)
        return figures(found)

    finish(work, as_json, again="the same command")


def _counted(
    preset: str, overrides: list[str], width: Width, family: Family, *, vram: float, tflops: float, document: Path | None
) -> dict[str, Any]:
    found = counted(preset, overrides, width, family, vram=vram, tflops=tflops)
    lines = [
        f"`{preset}` with --vram {vram:g}, networks of {width} width, text prior {family}: operations and memory counted, "
        f"minutes projected at {tflops:g} TFLOP/s; rendering, grids and export not counted.",
        "",
        *counted_table(found),
    ]
    _write(lines, document)
    return counted_figures(found)


def _write(lines: list[str], document: Path | None) -> None:
    for line in lines:
        answer(line)
    if document is not None:
        with for_the_user():
            document.write_text("\n".join(lines) + "\n")


def _show_plan(checked: Plan) -> dict[str, Any]:
    for cell in checked.cells:
        answer(f"{cell.label}: up to {cell.until}")
    answer(f"{len(checked.cells)} cells, at most {checked.stage_computations()} stages to compute")
    return {"study": checked.title, "cells": len(checked.cells), "stages": checked.stage_computations()}
