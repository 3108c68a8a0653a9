"""The settings of a run that differ from the defaults, and the commands that repeat or vary it."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dreampolish.optim.atomic_files import sha256_of
from flows.report.curves import was_computed_by
from schemas.config.presets import ConfigError, load_config
from schemas.config.run import Config
from schemas.config.shared.schedule import Ramp, constant
from schemas.runs import RunRecord
from stages.runtime.command import input_path
from stages.runtime.errors import StageError
from stages.runtime.files import CONFIGS, project_file
from stages.runtime.records import read_record


@dataclass(frozen=True)
class Change:
    """A setting that differs. `before`, `after`: as `--set` takes them. `by_preset`: the preset differs from the default here too."""

    name: str
    before: str
    after: str
    by_preset: bool


@dataclass(frozen=True)
class Command:
    """A command line and what it does."""

    what: str
    line: str


def changes(before: Config, after: Config) -> list[tuple[str, Any, Any]]:
    """Names and values, JSON-like, of settings that differ, in the schema's order; the preset's name is no setting."""
    pairs = _differences(plain(before), plain(after), "")
    return [change for change in pairs if change[0] != "preset"]


def plain(config: Config) -> dict[str, Any]:
    """Settings as nested JSON values; a schedule that stays at one value is that number, as people write it."""
    values: dict[str, Any] = _with_plain_schedules(config.model_dump(mode="json"))
    return values


def changes_from_default(config: Config) -> list[Change]:
    """How a run's settings differ from the schema's defaults."""
    base = preset_config(config.preset)
    by_user = {name for name, _, _ in changes(base, config)}
    return [Change(name, text(old), text(new), name not in by_user) for name, old, new in changes(Config(), config)]


def preset_config(preset: str) -> Config:
    """The settings of a preset without overrides; the defaults for one that is not there any more."""
    try:
        return load_config(preset, CONFIGS, [])
    except ConfigError:
        return Config()


def overrides_between(before: Config, after: Config) -> list[str]:
    """`section.key=value` settings that turn one configuration into the other."""
    return [f"{name}={text(new)}" for name, _, new in changes(before, after)]


def making_command(record: RunRecord, store: Path) -> Command:
    """The command that makes a run again, result for result."""
    if record.parent_run is not None:
        try:
            parent = read_record(store, record.parent_run)
        except StageError:
            pass
        else:
            return Command("Make it again from the same geometry", _texture_line(record, parent, store))
    return Command("Make it again", run_line(record, store, []))


def varying_commands(record: RunRecord, store: Path) -> list[Command]:
    """Commands that go on from a run."""
    run = record.run
    other_seed = "seed=" + str((record.config.seed + 1) % 2**31)
    commands = [
        Command("Another try", run_line(record, store, [other_seed])),
        Command("Texture and export anew on this geometry", f"dreampolish texture {run} --set texture.lambda_realistic=0.8"),
        Command("One stage alone", f"dreampolish stage neus --run {run} --set neus.steps={2 * record.config.neus.steps}"),
        Command("The asset in another format and size", f"dreampolish export {run} --format usdz --triangles 5000"),
        Command("Beside another run", f"dreampolish compare {run} RUN"),
    ]
    if record.mesh is not None:
        commands = [command for command in commands if not command.line.startswith("dreampolish stage")]
    if "export" in record.stages:
        return commands
    unfinished = [command for command in commands if not command.line.startswith("dreampolish export")]
    return [Command("Go on", f"dreampolish resume {run}"), *unfinished]


def run_line(record: RunRecord, store: Path, more: Sequence[str]) -> str:
    """The command that begins such a run, with its prompt, picture, mesh, preset and settings, then `more` settings, which win."""
    config = record.config
    replaced = {setting.partition("=")[0] for setting in more}
    own = [item for item in overrides_between(preset_config(config.preset), config) if item.partition("=")[0] not in replaced]
    words = ["dreampolish", *_beginning(record, store), *_preset(config.preset), *_sets([*own, *more])]
    if record.image is not None:
        words += ["--image", str(_picture(record.image, store))]
    for each in record.others:
        words += ["--image", f"{_picture(each.image, store)}@{each.azimuth_deg:g},{each.elevation_deg:g}"]
    return shlex.join([*words, "--", record.prompt])


def _beginning(record: RunRecord, store: Path) -> list[str]:
    if record.mesh is None:
        return ["run"]
    command, option = {"texture": ("texture", "--mesh"), "polish": ("polish", "--mesh"), "start": ("run", "--init-mesh")}[
        record.mesh_use
    ]
    return [command, option, str(input_path(store, record.mesh))]


def _picture(digest: str, store: Path) -> Path:
    """One of the project's own pictures, which lie in every checkout, or the store's copy."""
    own = sorted(project_file("benchmark/objects").glob("*/reference.png"))
    return next((path for path in own if sha256_of(path) == digest), input_path(store, digest))


def text(value: Any) -> str:
    """A value as `--set` reads it back: YAML on one line."""
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _is_plain(value: str) -> bool:
    try:
        return yaml.safe_load(value) == value
    except yaml.YAMLError:
        return False


def _texture_line(record: RunRecord, parent: RunRecord, store: Path) -> str:
    upstream = [entry for name, entry in record.stages.items() if name not in ("texture", "export")]
    refreshed = any(was_computed_by(store, record.run, entry.name, entry.fingerprint) for entry in upstream)
    words = ["dreampolish", "texture", parent.run, *_sets(overrides_between(parent.config, record.config))]
    return shlex.join([*words, "--refresh"] if refreshed else words)


def _preset(preset: str) -> list[str]:
    return [] if preset == "home" else ["--preset", preset]


def _sets(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _with_plain_schedules(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == Ramp.model_fields.keys() and value == constant(value["start"]).model_dump():
        return value["start"]
    return {key: _with_plain_schedules(item) for key, item in value.items()}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for key, new in after.items():
        old = before.get(key)
        if old == new:
            continue
        # Sections are listed key by key; a schedule, and a section that came, went or changed its kind, is listed whole.
        if isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys() != Ramp.model_fields.keys():
            yield from _differences(old, new, f"{prefix}{key}.")
        else:
            yield prefix + key, old, new
