"""The commands `ablate` and `studies`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import Json, Set, end, finish

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
        from flows.ablation.plan import planned

        checked = planned(study, store, preset, overrides or [])
        if plan:
            return _told(checked)
        from flows.runs.console import say
        from flows.service.temporary_server import load_stages, temporary_server

        # Prefect's home lies in the store and is made at import, but not the folders above it.
        store.mkdir(parents=True, exist_ok=True)
        say(f"study {checked.title}: {len(checked.cells)} cells, at most {checked.stage_computations()} stages to compute")
        from flows.ablation.flow import ablation

        with temporary_server(load_stages):
            result: dict[str, Any] = ablation(study=study, preset=preset, overrides=overrides or [], show_progress=True)
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
        from flows.ablation.document import write_page

        return {"output": str(write_page(folders, output).resolve())}

    finish(work, as_json)


def register(app: typer.Typer) -> None:
    """Add both commands."""
    app.command()(ablate)
    app.command()(studies)


def _told(checked: Any) -> dict[str, Any]:
    from flows.runs.console import answer

    for cell in checked.cells:
        answer(f"{cell.label}: up to {cell.until}")
    answer(f"{len(checked.cells)} cells, at most {checked.stage_computations()} stages to compute")
    return {"study": checked.title, "cells": len(checked.cells), "stages": checked.stage_computations()}
