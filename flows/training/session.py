"""What the trainings of the embedded priors share: their folders, their observer, their end."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.data.batches import RenderedViews
from dreampolish.optim.checkpoints import Checkpoints
from dreampolish.priors.folders.loading import load_autoencoder_folder
from dreampolish.priors.folders.source import PriorError
from dreampolish.priors.latents import LatentSpace
from dreampolish.training.recipes import latent_space
from schemas.trainings import PriorsTraining
from stages.runtime.errors import StageError
from stages.runtime.signals import StopSignal
from stages.runtime.tracking.journal import Journal, Place

CURVE_INTERVAL = 50
EXPORT_SECONDS = 600.0
"""How often the averaged weights are written while a training runs, so that the pipeline can be tried with them."""


@dataclass(frozen=True)
class TrainingPlace:
    """Where a training reads and writes. project: what the config's folders are relative to; work: checkpoints and journals."""

    project: Path
    work: Path
    tracker: Place
    stop: StopSignal

    def checkpoints(self, name: str, interval: int) -> Checkpoints:
        """The checkpoints of one training."""
        return Checkpoints(self.work / name, interval=interval, keep=2)

    def journal(self, name: str) -> Journal:
        """The journal of one training, a run of its own at the tracker."""
        return Journal(self.work / "journals", f"prior-{name}", f"prior {name}", {"kind": "prior", "prior": name})


def open_views(place: TrainingPlace, config: PriorsTraining, split: str, device: torch.device | None = None) -> RenderedViews:
    """The rendered views of a split, their pictures made on a device (None: the CPU); StageError where nothing has been rendered."""
    renders, file = place.project / config.renders, place.project / config.split
    try:
        return RenderedViews(renders, file, split, device)
    except FileNotFoundError as error:
        raise StageError(f"no training data: {error}", None, "make it with `dreampolish priors data`") from error


def open_space(place: TrainingPlace, config: PriorsTraining, device: torch.device) -> LatentSpace:
    """The latent space of the trained autoencoder, on a device; StageError where it is not there yet."""
    try:
        space = latent_space(load_autoencoder_folder(place.project / config.home / "autoencoder"))
    except PriorError as error:
        raise StageError(str(error), None, "train it with `dreampolish priors train autoencoder`") from error
    space.to(device)
    return space


class TrainingWatch:
    """An observer of `fit`: writes mean losses to the journal, saves the prior at intervals, reads new renders."""

    def __init__(self, place: TrainingPlace, journal: Journal, export: Callable[[], None], views: RenderedViews) -> None:
        self._place, self._journal, self._export, self._views = place, journal, export, views
        self._recent: list[Mapping[str, float]] = []
        self._exported = time.monotonic()

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        """Collect; every CURVE_INTERVAL steps log the means, every EXPORT_SECONDS write the prior."""
        self._recent.append(values)
        if step % CURVE_INTERVAL == 0:
            means = {name: sum(each[name] for each in self._recent) / len(self._recent) for name in values}
            self._journal.metrics(step, means)
            self._journal.send_if_due(self._place.tracker)
            self._recent = []
        if time.monotonic() - self._exported > EXPORT_SECONDS:
            self._export()
            self._views.refresh()
            self._exported = time.monotonic()
        return None

    def stop_requested(self) -> bool:
        """True once somebody asked the training to stop."""
        self._place.stop.acknowledge()
        return self._place.stop.requested


def finish(
    place: TrainingPlace, journal: Journal, scores: Mapping[str, float], sheet: Float[Tensor, "3 h w"], step: int
) -> dict[str, float]:
    """Log the held-out figures and the sheet, close the run at the tracker, return the figures."""
    journal.metrics(step, {f"final/{name}": value for name, value in scores.items()})
    picture = (sheet.permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    journal.image("sheet", step, np.ascontiguousarray(picture))
    journal.end("FINISHED")
    journal.send(place.tracker)
    return dict(scores)
