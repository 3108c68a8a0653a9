"""The commands report, compare and gallery."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command import Json, Run, finish
from schemas.presets import ConfigError

MOST_RUNS = 8
"""Side by side; browsers keep few 3D views open at once."""


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command()(report)
    app.command()(compare)
    app.command()(gallery)


def report(
    run: Run,
    output: Annotated[Path | None, typer.Option(help="where the page goes; without it, the run's output folder")] = None,
    as_json: Json = False,
) -> None:
    """Tell what a run made, and write its page: report.html, which opens anywhere."""

    def work(store: Path) -> dict[str, Any]:
        from flows.chain import OUTPUTS
        from flows.lines import say, stage_line, summary
        from flows.report.page import run_page, write_page
        from flows.report.runs import MAX_SIDE, open_facts, output_folder
        from stages.disk import disk_errors_in_one_line
        from stages.run_record import read_record

        record = read_record(store, run)
        for entry in record.stages.values():
            stage_line(entry, ())
        path = output or output_folder(record, OUTPUTS) / "report.html"
        page = run_page(open_facts(record, store, MAX_SIDE))
        with disk_errors_in_one_line(path.parent):
            write_page(path, page)
        say(f"report     {path.resolve()}")
        return {**summary(record), "report": str(path.resolve())}

    finish(work, as_json)


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="two or more runs' ids, or their beginnings")],
    output: Annotated[Path | None, typer.Option(help="where the page goes; without it, outputs/compare-<ids>.html")] = None,
    as_json: Json = False,
) -> None:
    """Write one page that shows runs side by side, their cameras locked together."""

    def work(store: Path) -> dict[str, Any]:
        from flows.chain import OUTPUTS
        from flows.report.page import compare_page, write_page
        from flows.report.runs import COMPARED_SIDE, open_facts
        from stages.disk import disk_errors_in_one_line
        from stages.run_record import read_record

        records = list({record.run: record for record in (read_record(store, run) for run in runs)}.values())
        if not 2 <= len(records) <= MOST_RUNS:
            raise ConfigError(f"{len(records)} different runs; a comparison takes 2 to {MOST_RUNS}")
        ids = [record.run for record in records]
        path = output or OUTPUTS / f"compare-{'-'.join(ids)}.html"
        page = compare_page([open_facts(record, store, COMPARED_SIDE) for record in records])
        with disk_errors_in_one_line(path.parent):
            write_page(path, page)
        return {"runs": ids, "output": str(path.resolve())}

    finish(work, as_json)


def gallery(
    runs: Annotated[list[str], typer.Argument(metavar="RUN ...", help="runs' ids, or their beginnings")],
    output: Annotated[Path, typer.Option(help="the folder; its index.md is written anew")] = Path("docs/gallery"),
    as_json: Json = False,
) -> None:
    """Write a picture of each run's asset and an index of them all, the best by alignment first, the worst said to be so."""

    def work(store: Path) -> dict[str, Any]:
        from flows.report.gallery import write_gallery
        from stages.disk import disk_errors_in_one_line
        from stages.run_record import read_record

        records = list({record.run: record for record in (read_record(store, run) for run in runs)}.values())
        with disk_errors_in_one_line(output):
            index = write_gallery(records, store, output)
        return {"runs": [record.run for record in records], "output": str(index.resolve())}

    finish(work, as_json)
