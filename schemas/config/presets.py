"""From a preset's name and a user's overrides to checked settings. Every mistake is one line with the nearest right name."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from schemas.config.run import Config
from schemas.yaml_text import read_yaml, told


class ConfigError(ValueError):
    """A setting is wrong; the message is one line for the user."""


def load_config(preset: str, folder: Path, overrides: Sequence[str]) -> Config:
    """The schema's defaults, then the preset's differences, then `section.key=value` overrides, in order.

    folder: holds `<preset>.yaml`. Raises ConfigError.
    """
    known = presets_in(folder)
    if preset not in known:
        raise ConfigError(f"no preset {preset!r}{_nearest(preset, known) or '; there are ' + ', '.join(known)}")
    differences = _read(folder / f"{preset}.yaml")
    return merged(Config(), {**differences, "preset": preset}, overrides)


NO_PRESETS = frozenset({"models"})
"""YAML files beside the presets that are none: the list of models that can be fetched."""


def presets_in(folder: Path) -> list[str]:
    """The names of a folder's presets, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem not in NO_PRESETS)


def merged(config: Config, differences: Mapping[str, Any], overrides: Sequence[str]) -> Config:
    """A configuration with nested differences and `section.key=value` overrides applied. Raises ConfigError."""
    values = config.model_dump()
    _merge(values, differences, Config, ())
    for override in overrides:
        path, value = _parsed(override)
        nested: Any = value
        for key in reversed(path):
            nested = {key: nested}
        _merge(values, nested, Config, ())
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_told(error)) from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(path.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} cannot be read: {told(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold sections, not {type(content).__name__}")
    return content


def _parsed(override: str) -> tuple[list[str], Any]:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"{override!r} is no setting; write it as section.key=value")
    try:
        return name.strip().split("."), _number(read_yaml(text))
    except yaml.YAMLError:
        raise ConfigError(f"{text!r} is no value for {name}") from None


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as text; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _merge(values: dict[str, Any], differences: Mapping[str, Any], model: type[BaseModel], path: tuple[str, ...]) -> None:
    """Lay differences over plain values, in place; sections are merged, everything else is replaced."""
    for key, difference in differences.items():
        where = (*path, str(key))
        field = model.model_fields.get(str(key))
        if field is None:
            raise ConfigError(f"unknown setting {'.'.join(where)}{_nearest('.'.join(where), list(names(Config)))}")
        section = _section(field.annotation)
        if section is not None and isinstance(difference, Mapping):
            if not isinstance(values.get(key), dict):
                values[key] = {}
            _merge(values[key], difference, section, where)
        else:
            values[key] = difference


def names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting's full name, sections included."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section(field.annotation)
        if section is not None:
            yield from names(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model behind a field's annotation, if it is a section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, Annotated):
        found = (_section(option) for option in get_args(annotation) if isinstance(option, type))
        return next((section for section in found if section is not None), None)
    return None


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    # A section's whole content would bury what is said of it.
    value = "" if isinstance(first.get("input"), dict | BaseModel) else f" = {first.get('input')!r}"
    return f"{where}{value}: {_plain(first['msg'])}{more}"


PLAIN = {
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be a valid boolean": "must be true or false",
    "Input should be a valid string": "must be text",
    "Input should be a valid tuple": "must be a list",
    "Input should be ": "must be ",
    "Value error, ": "",
}
"""Beginnings of pydantic's messages, and what a user reads in their place."""


def _plain(message: str) -> str:
    for begins, plain in PLAIN.items():
        if message.startswith(begins):
            tail = message.removeprefix(begins)
            return plain if plain.startswith("must be a ") else plain + tail.split(", unable to parse", 1)[0]
    return message
