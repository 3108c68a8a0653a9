"""The settings of a store's service: `<store>/services/settings.json`, its owner's alone, for it may hold passwords."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from dreampolish.optim.atomic_files import write_atomically
from flows.service.processes import private_folder, services_folder
from schemas.config.presets import ConfigError
from schemas.service import ServiceSettings

DEFAULT = "default"
"""As a value: what the setting is without being told."""


def settings_path(store: Path) -> Path:
    """Where a store's settings lie."""
    return services_folder(store) / "settings.json"


def read_settings(store: Path) -> ServiceSettings:
    """What the last `up` was told; the defaults where none was. Raises ConfigError for a file that cannot be read."""
    try:
        return ServiceSettings.model_validate_json(settings_path(store).read_bytes())
    except FileNotFoundError:
        return ServiceSettings()
    except (OSError, ValidationError):
        raise ConfigError(
            f"{settings_path(store)} cannot be read; remove it and tell `dreampolish up` the settings anew"
        ) from None


def told_settings(store: Path, database: str | None, lines: Sequence[str]) -> ServiceSettings:
    """The store's settings with what a call of `up` changes. Raises ConfigError, which repeats no value.

    database: of `--database`; lines: `name=value` of `--set`.
    """
    told: dict[str, Any] = {} if database is None else {"database": database}
    for line in lines:
        name, mark, value = line.partition("=")
        if not mark:
            raise ConfigError("--set takes name=value, as in --set pool=docker")
        told[name.strip()] = value.strip()
    known = _plain(read_settings(store))
    kept = {name: value for name, value in {**known, **told}.items() if value != DEFAULT}
    return checked_settings(kept)


def checked_settings(values: Mapping[str, Any]) -> ServiceSettings:
    """Values as settings. Raises ConfigError with the first that is wrong, in one line and without its value."""
    try:
        return ServiceSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if first["type"] == "extra_forbidden":
            known = ", ".join(ServiceSettings.model_fields)
            raise ConfigError(f"`up` has no setting of that name; it has {known}") from None
        raise ConfigError(f"{name} {first['msg'].removeprefix('Value error, ')}") from None


def write_settings(store: Path, settings: ServiceSettings) -> None:
    """Keep the settings for the next `up`."""
    private_folder(services_folder(store))
    write_atomically(settings_path(store), json.dumps(_plain(settings)).encode(), 0o600)


def _plain(settings: ServiceSettings) -> dict[str, Any]:
    """With passwords as they are: for the private file alone."""
    values = settings.model_dump(exclude_defaults=True)
    return {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()}
