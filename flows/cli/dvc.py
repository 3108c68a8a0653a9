"""What `dvc repro` calls: one stage of the asset that params.yaml names, through the same code path and store as everything else.

DVC decides when to call; the store decides what to compute. The result is a small JSON per stage that DVC compares: the artifact's
fingerprint and file hashes, without times, so that an equal result is an equal file. Beside it lie the stage's figures and its curve of
the reference view's PSNR, for `dvc metrics` and `dvc plots`.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.service.environment import quiet_environment
from schemas.artifacts import StageName
from schemas.config.presets import ConfigError, load_config
from schemas.config.run import PROMPT_LIMIT
from schemas.runs import STAGES, RunRecord
from schemas.trainings import PriorsTraining
from schemas.yaml_text import read_yaml
from stages.runtime.errors import StageError
from stages.runtime.files import (
    OUTPUTS_ELSEWHERE,
    PROJECT,
    disk_errors_in_one_line,
    for_the_user,
    keep_private,
    store_folder,
    try_folder,
)
from stages.runtime.tracking.messages import write_line

M = TypeVar("M", bound=BaseModel)
RUN = "dvcasset"
"""The id of the run that DVC's asset belongs to."""
FOLDER = Path("outputs/dvc")
METRICS = FOLDER / "metrics"
CURVES = FOLDER / "curves"
CURVE = "psnr"
"""The figure that every fit reports by step: PSNR of the reference view, dB."""
CURVED: tuple[StageName, ...] = ("nerf", "neus", "dmtet", "polish", "texture")
"""Stages that are fits."""


class Params(BaseModel):
    """params.yaml."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT)]
    preset: str
    overrides: list[str]


def run_dvc_stage(name: StageName, params_path: Path) -> Path:
    """Compute or find one stage and write its JSON, whose path is returned. Raises ConfigError or StageError."""
    from flows.report.curves import curves_of_stage
    from flows.runs.chain import CHAIN
    from flows.runs.create import check_priors, now
    from flows.runs.inputs import check_thing_named, checked_prompt
    from stages.runtime.command import run_one
    from stages.runtime.context import context_of
    from stages.runtime.files import CONFIGS
    from stages.runtime.records import read_record, record_path, write_record
    from stages.runtime.tracking.journal import place_from_store

    params = _read(params_path, Params)
    with for_the_user():
        try_folder(FOLDER, OUTPUTS_ELSEWHERE)
    store = store_folder()
    config = load_config(params.preset, CONFIGS, params.overrides)
    check_priors(config)
    known = read_record(store, RUN).stages if record_path(store, RUN).is_file() else {}
    record = RunRecord(run=RUN, prompt=checked_prompt(params.prompt), config=config, created=now(), stages=known)
    check_thing_named(record.prompt, context_of(record, store, None, show_progress=False), config.reference, drawn=True)
    write_record(store, record)
    artifact = run_one(CHAIN[name], RUN, [], tracking_uri=place_from_store(store, None).uri, show_progress=False)
    with disk_errors_in_one_line(FOLDER, OUTPUTS_ELSEWHERE):
        _write_json(METRICS / f"{name}.json", read_record(store, RUN).stages[name].metrics)
        if name in CURVED:
            _write_curve(CURVES / f"{name}.csv", curves_of_stage(store, RUN, name, artifact.fingerprint).get(CURVE, []))
        return _write_json(
            FOLDER / f"{name}.json", artifact.model_dump(mode="json", exclude={"seconds", "peak_memory", "cuda_peak_memory"})
        )


def _write_curve(path: Path, curve: Sequence[tuple[int, float]]) -> None:
    """A line a step; where no journal has the curve any more, the heading alone."""
    with for_the_user():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{step},{value}\n" for step, value in [("step", CURVE), *curve]))


PARTS = ("autoencoder", "text", "view", "normals", "judge")
PARAMS = Path("priors/params.yaml")
FIGURES = Path("outputs/dvc/priors")
TRUNK = Path("judge/trunk.safetensors")


def train_part(part: str, params_path: Path) -> Path:
    """Train one part and write its held-out figures, whose path is returned. Raises ConfigError or StageError."""
    from flows.training.flow import TRAININGS, Part, training_place
    from stages.runtime.signals import stop_on_signals

    settings = read_settings(params_path)
    known: dict[str, Part] = {name: name for name in get_args(Part)}
    if part == "judge":
        _place_trunk(PROJECT / settings.home)
    with stop_on_signals() as stop:
        place = training_place(store_folder(), stop)
        # Another setting is another training: it must not go on from this one's checkpoints.
        work = place.work / f"dvc-{hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:12]}"
        scores = TRAININGS[known[part]](replace(place, work=work), settings)
    return _write_json(FIGURES / f"{part}.json", scores)


def evaluate(params_path: Path) -> Path:
    """Gather the parts' figures in `<home>/figures.json`, whose path is returned, and write the model card. Raises ConfigError."""
    from flows.training.card import write_card
    from flows.training.flow import ORDER

    settings = read_settings(params_path)
    scores: dict[str, dict[str, float]] = {part: json.loads((FIGURES / f"{part}.json").read_text()) for part in ORDER}
    write_card(PROJECT / settings.home, PROJECT / settings.renders, PROJECT / settings.split, scores)
    return PROJECT / settings.home / "figures.json"


def read_settings(path: Path) -> PriorsTraining:
    """The trainings' settings: the defaults with a file's differences. Raises ConfigError in one line."""
    return _read(path, PriorsTraining)


def _read(path: Path, model: type[M]) -> M:
    try:
        return model.model_validate(read_yaml(path.read_text()) or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None


def _place_trunk(home: Path) -> None:
    """The judge's frozen trunk is not trained (dreampolish/training/converters.py makes it); the shipped one serves every training."""
    if not (home / TRUNK).is_file():
        (home / TRUNK).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / "priors" / "home" / TRUNK, home / TRUNK)


def _write_json(path: Path, content: object) -> Path:
    with for_the_user():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return path


def main() -> None:
    """`python -m flows.cli.dvc stage NAME` or `python -m flows.cli.dvc prior PART` (`evaluation`: the figures and the card)."""
    parser = argparse.ArgumentParser(prog="python -m flows.cli.dvc")
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("stage").add_argument("name", choices=STAGES)
    kinds.add_parser("prior").add_argument("name", choices=(*PARTS, "evaluation"))
    options = parser.parse_args()
    name = options.name
    if options.kind == "stage":
        keep_private()
    store_folder().mkdir(parents=True, exist_ok=True)
    quiet_environment(store_folder())
    from dreampolish.optim.fit import FitInterruptedError

    try:
        if options.kind == "stage":
            run_dvc_stage(name, Path("params.yaml"))
        elif name == "evaluation":
            evaluate(PARAMS)
        else:
            train_part(name, PARAMS)
    except (StageError, ConfigError) as error:
        write_line(str(error), "error")
        sys.exit(2)
    except (FitInterruptedError, KeyboardInterrupt) as error:
        write_line(f"{name}: {error}; dvc repro goes on from there", "error")
        sys.exit(130)


if __name__ == "__main__":
    main()
