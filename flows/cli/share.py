"""The commands report, compare, gallery, export, validate and show."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.benchmark.assets.browser import module_folders
from flows.cli.command import Json, Run, Set, end, finish
from flows.report.facts import COMPARED_SIDE, MAX_SIDE, open_facts
from flows.report.gallery import write_gallery
from flows.report.page import compare_page, run_page, write_page
from flows.report.settings import making_command
from flows.runs.console import answer, say, stage_line, summary
from flows.runs.create import output_folder
from flows.runs.files.exports import Exported, PrintWishes, checked_format, export_run, print_run
from flows.runs.files.making import making_of
from flows.runs.files.validate import findings_of
from flows.runs.roots import OUTPUTS
from schemas.config.presets import ConfigError, merged
from schemas.runs import RunRecord
from stages.runtime.files import disk_errors_in_one_line, for_the_user
from stages.runtime.records import read_record

PRINT_SIDE_MM = 100.0
"""Longest side of a print where none is asked for. [choice]"""

MOST_RUNS = 8
"""Side by side; browsers keep few 3D views open at once."""


def report(
    run: Run,
    output: Annotated[Path | None, typer.Option(help="where the page goes; without it, the run's output folder")] = None,
    as_json: Json = False,
) -> None:
    """Tell what a run made, and write its page: report.html, which opens anywhere."""

    def work(store: Path) -> dict[str, Any]:
        record = read_record(store, run)
        for entry in record.stages.values():
            stage_line(entry, ())
        path = output or output_folder(record, OUTPUTS) / "report.html"
        page = run_page(open_facts(record, store, MAX_SIDE))
        with for_the_user(), disk_errors_in_one_line(path.parent):
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
        records = list({record.run: record for record in (read_record(store, run) for run in runs)}.values())
        if not 2 <= len(records) <= MOST_RUNS:
            raise ConfigError(f"a comparison needs 2 to {MOST_RUNS} different runs, got {len(records)}")
        ids = [record.run for record in records]
        path = output or OUTPUTS / f"compare-{'-'.join(ids)}.html"
        page = compare_page([open_facts(record, store, COMPARED_SIDE) for record in records])
        with for_the_user(), disk_errors_in_one_line(path.parent):
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
        records = list({record.run: record for record in (read_record(store, run) for run in runs)}.values())
        with for_the_user(), disk_errors_in_one_line(output):
            index = write_gallery(records, store, output)
        return {"runs": [record.run for record in records], "output": str(index.resolve())}

    finish(work, as_json)


def export(
    run: Run,
    kind: Annotated[str, typer.Option("--format", help="glb, obj, ply, stl or usdz; with --print stl or 3mf")] = "glb",
    printed: Annotated[
        bool, typer.Option("--print", help="one closed body in millimetres, with its certificate beside it")
    ] = False,
    flat_base: Annotated[float, typer.Option(metavar="MM", min=0.0, help="with --print: height cut off for a flat base")] = 0.0,
    triangles: Annotated[int | None, typer.Option(help="at most so many; none: as the run's settings say")] = None,
    texture: Annotated[int | None, typer.Option(help="pixels of the maps' side, a power of two")] = None,
    quality: Annotated[
        str | None, typer.Option(help="web: decimated, with a normal map; base: every triangle, lossless")
    ] = None,
    longest_side: Annotated[float | None, typer.Option(help="of the object, metres (STL: the program's unit)")] = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Write a run's asset once more, in any format and size, beside what it has; nothing else is computed anew."""

    def work(store: Path) -> dict[str, Any]:
        wanted = {"triangle_budget": triangles, "texture_size": texture, "quality": quality, "longest_side": longest_side}
        settings = [f"export.{name}={value}" for name, value in wanted.items() if value is not None]
        foreign = [entry for entry in overrides or [] if not entry.startswith("export.")]
        if foreign:
            raise ConfigError(f"--set {foreign[0]} is no setting of the export; dreampolish texture makes a new texture")
        record = read_record(store, run)
        config = merged(record.config, {}, [*settings, *(overrides or [])])
        if printed:
            side = PRINT_SIDE_MM if longest_side is None else 1000 * config.export.longest_side
            wishes = PrintWishes(longest_side_mm=side, flat_base_mm=flat_base)
            body = print_run(record=record, config=config, store=store, kind=kind, outputs=OUTPUTS, wishes=wishes)
            return _told(record, body)
        if flat_base > 0:
            raise ConfigError("--flat-base goes with --print alone")
        name = checked_format(kind)
        if config.export.quality == "base" and triangles is not None:
            raise ConfigError("base keeps every triangle; leave --triangles away, or take --quality web")
        done = export_run(record=record, config=config, store=store, kind=name, outputs=OUTPUTS)
        say(f"{done.triangles:,} triangles, {done.files[0].stat().st_size / 1e6:.2f} MB")
        return _told(record, done)

    finish(work, as_json)


def _told(record: RunRecord, done: Exported) -> dict[str, Any]:
    for note in done.notes:
        say(note)
    files = [str(path) for path in done.files]
    return {"run": record.run, "output": files[0], "files": files, "triangles": done.triangles, "notes": list(done.notes)}


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE.glb", help="an asset that DreamPolish wrote")], as_json: Json = False
) -> None:
    """Say what an asset's file tells of its making, and the command that makes it again."""

    def work(store: Path) -> dict[str, Any]:
        found = making_of(file, store)
        command = shlex.join(["dreampolish", "run", "--set", f"seed={found.seed}", "--", found.prompt])
        if found.run is not None:
            command = making_command(found.run, store).line
        lines = {
            "prompt": found.prompt,
            "seed": str(found.seed),
            **{f"{key} prior": each for key, each in found.licences.items()},
        }
        lines |= {name: print_[:12] for name, print_ in found.fingerprints.items()}
        for name, value in lines.items():
            answer(f"{name:<14} {value}")
        answer(f"{'run':<14} {'not of this store' if found.run is None else found.run.run}")
        answer(
            f"{'again':<14} {command}" + ("" if found.run is not None else "    (its preset and settings are not in the file)")
        )
        run = None if found.run is None else found.run.run
        return {"prompt": found.prompt, "seed": found.seed, "fingerprints": found.fingerprints, "run": run, "command": command}

    finish(work, as_json)


def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a .glb, .obj, .ply, .stl or .usdz")], as_json: Json = False
) -> None:
    """Check a 3D file: GLB by the Khronos validator (npm install gltf-validator) or, without it, by trimesh's glTF schema."""
    errors: list[str] = []

    def work(store: Path) -> dict[str, Any]:
        try:
            found = findings_of(file, module_folders())
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be read: {error.strerror}; give the path of a .glb, .obj, .ply, .stl or .usdz"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{file} cannot be checked: {error}") from None
        for word, entries in (("error", found.errors), ("warning", found.warnings)):
            for entry in entries:
                answer(f"{word}: {entry}")
        figures = ", ".join(f"{name} {value:g}" for name, value in found.figures.items())
        answer(
            f"{file.name}: {len(found.errors)} errors, {len(found.warnings)} warnings by {found.checker}; {figures}".rstrip(
                "; "
            )
        )
        errors.extend(found.errors)
        return {
            "file": str(file),
            "checker": found.checker,
            "errors": list(found.errors),
            "warnings": list(found.warnings),
            "figures": found.figures,
        }

    finish(work, as_json)
    if errors:
        end(f"{file.name} is not sound", 1)
