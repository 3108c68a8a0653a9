"""What `dvc repro` calls: one stage of the asset that params.yaml names, through the same code path and store as everything else.

DVC decides when to call; the store decides what to compute. The result is a small JSON per stage that DVC compares: the artifact's
fingerprint and file hashes, without times, so that an equal result is an equal file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.quiet import quiet_environment
from schemas.artifacts import StageName
from schemas.config import PROMPT_LIMIT
from schemas.presets import ConfigError, load_config
from schemas.runs import STAGES, RunRecord
from stages.disk import store_folder
from stages.errors import StageError

RUN = "dvcasset"
"""The id of the run that DVC's asset belongs to."""
FOLDER = Path("outputs/dvc")


class Params(BaseModel):
    """params.yaml."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT)]
    preset: str
    overrides: list[str]


def run_dvc_stage(name: StageName, params_path: Path) -> Path:
    """Compute or find one stage and write its JSON, whose path is returned. Raises ConfigError or StageError."""
    from dreampolish.tracking import place_from_store
    from flows.inputs import check_thing_named, checked_prompt
    from flows.runs import CONFIGS, check_priors, now
    from flows.stage_functions import stage_function
    from stages.entry import context_of, run_one
    from stages.run_record import read_record, record_path, write_record

    try:
        params = Params.model_validate(yaml.safe_load(params_path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{params_path}: {str(error).splitlines()[0]}") from None
    store = store_folder()
    config = load_config(params.preset, CONFIGS, params.overrides)
    check_priors(config)
    known = read_record(store, RUN).stages if record_path(store, RUN).is_file() else {}
    record = RunRecord(run=RUN, prompt=checked_prompt(params.prompt), config=config, created=now(), stages=known)
    check_thing_named(record.prompt, context_of(record, store, None, False), config.reference, drawn=True)
    write_record(store, record)
    artifact = run_one(name, stage_function(name), RUN, [], place_from_store(store, None).uri, False)
    told = artifact.model_dump(mode="json", exclude={"seconds", "peak_memory"})
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    return path


def main() -> None:
    """`python -m flows.dvc_stage NAME`."""
    parser = argparse.ArgumentParser(prog="python -m flows.dvc_stage")
    parser.add_argument("name", choices=STAGES)
    name = parser.parse_args().name
    quiet_environment(store_folder())
    from dreampolish.optimize import FitInterruptedError

    try:
        run_dvc_stage(name, Path("params.yaml"))
    except (StageError, ConfigError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except (FitInterruptedError, KeyboardInterrupt) as error:
        sys.stderr.write(f"{name}: {error}; dvc repro goes on from there\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
