"""Settings of a store, in `settings.yaml` in its folder: how much it keeps, and how it is shared. No run's key depends on them."""

from pathlib import Path

import yaml
from pydantic import Field, FiniteFloat, ValidationError

from schemas.base import Frozen
from schemas.config.presets import ConfigError
from schemas.yaml_text import read_yaml

SETTINGS_FILE = "settings.yaml"


class StoreSettings(Frozen):
    """What a store keeps, and how machines share it."""

    max_gib: FiniteFloat | None = Field(default=None, gt=0)
    """GiB of results and journals; beyond it the runs that were touched longest ago go, oldest first. None: no bound."""
    runs_days: FiniteFloat | None = Field(default=None, gt=0)
    """Days after which a run goes that nothing has touched. None: runs stay."""
    grace_hours: FiniteFloat = Field(default=24.0, ge=0)
    """Hours for which nothing goes after it was written, at least 6 for a shared store."""
    checkpoint_days: FiniteFloat = Field(default=30.0, gt=0)
    """Days after which checkpoints of a stopped stage go."""
    lease_s: FiniteFloat = Field(default=60.0, ge=3)
    """Seconds without a sign of life after which another machine takes a computation over."""
    checkpoint_s: FiniteFloat = Field(default=120.0, ge=0)
    """Seconds between two checkpoints that go to the shared store; 0: each."""


def read_settings(store: Path) -> StoreSettings:
    """The settings of a store. Raises ConfigError, in one line, for a file that cannot be read."""
    path = store / SETTINGS_FILE
    try:
        found = read_yaml(path.read_text(encoding="utf-8"))
        return StoreSettings() if found is None else StoreSettings.model_validate(found)
    except FileNotFoundError:
        return StoreSettings()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        known = ", ".join(StoreSettings.model_fields)
        raise ConfigError(f"{path}: {where}: {first['msg']}; there are {known}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}; write lines such as max_gib: 50") from None
