"""The flow of `dreampolish priors train`: the embedded priors made anew from the rendered furniture, one task each, resumable."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.runs.create import slug_from_prompt
from flows.runs.roots import deployed, under_a_root
from flows.service.marks import at_work
from flows.training.autoencoder import train_autoencoder
from flows.training.card import write_card
from flows.training.denoisers import train_normals, train_text, train_view
from flows.training.judge import train_judge
from flows.training.session import TrainingPlace
from schemas.trainings import PriorsTraining
from stages.runtime.files import PROJECT, for_the_user, store_folder
from stages.runtime.signals import StopSignal, stop_on_signals
from stages.runtime.tracking.events import tell_prefect
from stages.runtime.tracking.journal import place_from_store
from stages.runtime.tracking.registry import register_priors

Part = Literal["autoencoder", "text", "view", "normals", "judge"]
ORDER: Sequence[Part] = ("autoencoder", "text", "view", "normals", "judge")
NEEDS: dict[Part, tuple[Part, ...]] = {
    "autoencoder": (),
    "text": ("autoencoder",),
    "view": ("autoencoder", "text"),
    "normals": ("autoencoder", "view"),
    "judge": (),
}
"""Whose weights each training reads."""
DIFFUSED_AND_JUDGE: Sequence[Part] = ("text", "view", "normals", "judge")
"""The parts that a run's settings name."""
TRAININGS: dict[Part, Callable[[TrainingPlace, PriorsTraining], dict[str, float]]] = {
    "autoencoder": train_autoencoder,
    "text": train_text,
    "view": train_view,
    "normals": train_normals,
    "judge": train_judge,
}


@flow(name="dreampolish-priors", flow_run_name="priors", persist_result=False, log_prints=False)
@at_work
def train_priors(parts: Sequence[Part] | None = None, config: PriorsTraining | None = None) -> dict[str, Any]:
    """Train the named parts, or all, in an order that they need each other in; returns their held-out figures.

    A deployment reads and writes under the roots alone (flows/runs/roots.py). A stopped training goes on where it stopped. Every part
    overwrites its folder under `home`, the model card at the end.
    """
    settings = config or PriorsTraining()
    if deployed():
        _check_places(settings)
    store = store_folder()
    with for_the_user(), stop_on_signals() as stop:
        place = training_place(store, stop)
        scores: dict[str, dict[str, float]] = {
            part: _as_task(part, place, settings) for part in ORDER if parts is None or part in parts
        }
        write_card(PROJECT / settings.home, PROJECT / settings.renders, PROJECT / settings.split, scores)
        _register(PROJECT / settings.home, settings.home, place)
    return {"output": str(PROJECT / settings.home), "scores": scores}


def _register(home: Path, shown: str, place: TrainingPlace) -> None:
    """The new priors in the tracker's registry, and an event for those whose content is new; nothing while the tracker is away."""
    with suppress(Exception):
        alias = slug_from_prompt(home.name)
        made = register_priors(place.tracker, home, alias, shown)
        if any(each.is_new for each in made):
            sources = {part: {"source": f"{shown}/{part}"} for part in DIFFUSED_AND_JUDGE if (home / part).is_dir()}
            payload = {"alias": alias, "digests": {each.name: each.digest for each in made}, "overrides": {"priors": sources}}
            tell_prefect("priors.registered", f"priors.{alias}", f"priors {alias}", payload)


def _check_places(settings: PriorsTraining) -> None:
    """Raise ConfigError for folders that a deployment's run may not read or write."""
    for name in ("renders", "split"):
        under_a_root(PROJECT / getattr(settings, name), f"config.{name}")
    under_a_root(PROJECT / settings.home, "config.home", writing=True)


def training_place(store: Path, stop: StopSignal) -> TrainingPlace:
    """Checkpoints and journals inside the store, figures to its tracker."""
    return TrainingPlace(PROJECT, store / "priors", place_from_store(store, os.environ.get("MLFLOW_TRACKING_URI")), stop)


def _as_task(part: Part, place: TrainingPlace, settings: PriorsTraining) -> dict[str, float]:
    """One training as a Prefect task run."""

    @task(name=f"priors-{part}", task_run_name=part, cache_policy=NO_CACHE, persist_result=False)
    def training() -> dict[str, float]:
        return TRAININGS[part](place, settings)

    return training()
