"""What `dvc repro models/dvc.yaml` calls: one training of the embedded priors, through the same functions as `dreampolish priors train`.

DVC owns the versions of the renders and of the weights it makes, which lie in models/home, apart from the shipped priors/home: an asset
is made with the shipped ones unless its settings name others. Checkpoints and curves stay in the store, so that a stopped training goes
on though DVC runs its command anew.
"""

import argparse
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import yaml
from pydantic import ValidationError

from flows.quiet import quiet_environment
from schemas.presets import ConfigError
from schemas.priors import PriorsTraining
from stages.disk import store_folder
from stages.errors import StageError
from stages.fingerprint import PROJECT

PARAMS = Path("models/params.yaml")
FIGURES = Path("outputs/dvc/priors")
TRUNK = Path("judge/trunk.safetensors")


def train_part(part: str, params_path: Path) -> Path:
    """Train one part and write its held-out figures, whose path is returned. Raises ConfigError or StageError."""
    from flows.train_priors import TRAININGS, Part, training_place
    from stages.stopping import stop_on_signals

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
    from flows.train_priors import ORDER
    from stages.priors_card import write_card

    settings = read_settings(params_path)
    scores: dict[str, dict[str, float]] = {part: json.loads((FIGURES / f"{part}.json").read_text()) for part in ORDER}
    write_card(PROJECT / settings.home, PROJECT / settings.renders, PROJECT / settings.split, scores)
    return PROJECT / settings.home / "figures.json"


def read_settings(path: Path) -> PriorsTraining:
    """The trainings' settings: the defaults with a file's differences. Raises ConfigError in one line."""
    try:
        return PriorsTraining.model_validate(yaml.safe_load(path.read_text()) or {})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from None


def _place_trunk(home: Path) -> None:
    """The judge's frozen trunk is not trained (metrics/alignment_trunk.py makes it); the shipped one serves every training."""
    if not (home / TRUNK).is_file():
        (home / TRUNK).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / "priors" / "home" / TRUNK, home / TRUNK)


def _write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return path


def main() -> None:
    """`python -m flows.dvc_priors PART`, or `evaluation`."""
    parser = argparse.ArgumentParser(prog="python -m flows.dvc_priors")
    parser.add_argument("part", choices=("autoencoder", "text", "view", "normals", "judge", "evaluation"))
    part = parser.parse_args().part
    store_folder().mkdir(parents=True, exist_ok=True)
    quiet_environment(store_folder())
    try:
        evaluate(PARAMS) if part == "evaluation" else train_part(part, PARAMS)
    except (StageError, ConfigError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
