"""The commands `export` and `validate`: a run's asset in other formats and sizes, and whether a 3D file is sound."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command import Json, Run, Set, end, finish
from schemas.presets import ConfigError


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("export")(export)
    app.command("validate")(validate)


def export(
    run: Run,
    kind: Annotated[str, typer.Option("--format", help="glb, obj, ply, stl or usdz")] = "glb",
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
        from flows.chain import OUTPUTS
        from flows.exports import checked_format, export_run
        from flows.lines import say
        from schemas.presets import merged
        from stages.run_record import read_record

        wanted = {"triangle_budget": triangles, "texture_size": texture, "quality": quality, "longest_side": longest_side}
        settings = [f"export.{name}={value}" for name, value in wanted.items() if value is not None]
        foreign = [entry for entry in overrides or [] if not entry.startswith("export.")]
        if foreign:
            raise ConfigError(f"--set {foreign[0]} is no setting of the export; dreampolish texture makes a new texture")
        name, record = checked_format(kind), read_record(store, run)
        config = merged(record.config, {}, [*settings, *(overrides or [])])
        if config.export.quality == "base" and triangles is not None:
            raise ConfigError("base keeps every triangle; leave --triangles away, or take --quality web")
        done = export_run(record, config, store, name, OUTPUTS)
        say(f"{done.triangles:,} triangles, {done.files[0].stat().st_size / 1e6:.2f} MB")
        for note in done.notes:
            say(note)
        files = [str(path) for path in done.files]
        return {"run": record.run, "output": files[0], "files": files, "triangles": done.triangles, "notes": list(done.notes)}

    finish(work, as_json)


def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a .glb, .obj, .ply, .stl or .usdz")], as_json: Json = False
) -> None:
    """Check a 3D file: GLB by the Khronos validator (npm install gltf-validator) or, without it, by structural checks."""
    errors: list[str] = []

    def work(store: Path) -> dict[str, Any]:
        from dreampolish.mesh.validate import findings_of
        from flows.lines import answer
        from flows.npm_packages import module_folders

        try:
            found = findings_of(file, module_folders())
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
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
