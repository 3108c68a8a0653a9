"""Who watches a stage's fit: metrics and pictures to the tracker, the switch criterion, and a requested stop."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.metrics.pictures import psnr, ssim
from stages.results.live import Looking, Unfinished
from stages.runtime.stage import Stage
from stages.runtime.tracking.live import LiveStage

LOG_INTERVAL = 5
"""Steps between two logged points of a curve."""
PREVIEWS = 20
"""Pictures of the reference view that a stage shows at least, one at every twentieth of its steps."""

Draw = Callable[[], Mapping[str, Float[Tensor, "h w 3"]]]
"""Pictures in [0, 1] by name; `view` is the render from the reference camera, by a path that draws no random number."""


class Preview:
    """The pictures that a stage shows: those its step rendered anyway, so that showing them costs next to nothing.

    They are of before the step's update, and of a volume with the step's jitter; what is published is measured anew.
    draw: renders them, for a step that has not. unfinished: how the result so far is looked at from all around, while somebody does.
    """

    def __init__(self, draw: Draw, unfinished: Unfinished | None = None) -> None:
        self._draw, self._pictures = draw, dict[str, Tensor]()
        self.unfinished = unfinished

    def keep(self, **pictures: Float[Tensor, "1 h w 3"]) -> None:
        """Pictures of the current step, `view` among them: of one camera each, [0, 1]. Without any, what is shown will be drawn."""
        self._pictures = {name: picture.detach()[0] for name, picture in pictures.items()}

    def pictures(self) -> Mapping[str, Float[Tensor, "h w 3"]]:
        """By name."""
        if self._pictures:
            return self._pictures
        with torch.no_grad():
            return self._draw()


class Figures(dict[str, float]):
    """Figures of the latest step, restorable, so that a stage resumed at its last step still has them."""

    def state_dict(self) -> dict[str, float]:
        """A copy."""
        return dict(self)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` gave."""
        self.clear()
        self.update(state)


class StageObserver:
    """An observer of `optimize.fit` for one stage.

    shown: holds the pictures that the tracker shows, every `preview_interval` steps or more often, with PSNR and SSIM of `view`
    against `reference`. switch: gives the reason to hand over early, or None; it is asked
    after every step with the step's losses.
    """

    def __init__(
        self,
        stage: Stage,
        steps: int,
        preview_interval: int,
        shown: Preview,
        switch: Callable[[int, Mapping[str, float]], str | None] | None,
        reference: Float[Tensor, "1 h w 3"],
    ) -> None:
        self._stage, self._steps = stage, steps
        self._interval = max(1, min(preview_interval, steps // PREVIEWS))
        self._shown, self._switch, self._reference = shown, switch, reference
        self._looking: Looking | None = None
        if shown.unfinished is not None and stage.logs_steps:
            live = LiveStage(stage.run.store, stage.run.run_id, stage.name)
            self._looking = Looking(live, shown.unfinished, stage.device)
        self.extra = Figures()
        """Figures of the current step beside its losses; the stage fills it inside `losses`."""

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        """Log, show and ask whether to hand over."""
        if step % LOG_INTERVAL == 0 or step == self._steps:
            self._stage.log(step, {**values, **self.extra})
        self._stage.progress(step, self._steps)
        if self._stage.logs_steps and (step % self._interval == 0 or step == self._steps):
            self._show(step)
        if self._looking is not None:
            self._looking.after_step()
        return None if self._switch is None else self._switch(step, values)

    def _show(self, step: int) -> None:
        pictures = self._shown.pictures()
        figures = reference_figures(pictures["view"][None], self._reference)
        for name, picture in pictures.items():
            self._stage.image(name, step, as_bytes(picture))
        self._stage.log(step, figures)

    def stop_requested(self) -> bool:
        """True once somebody asked the stage to stop."""
        return self._stage.stop_requested()


def reference_figures(rgb: Float[Tensor, "1 h w 3"], reference: Float[Tensor, "1 h w 3"]) -> dict[str, float]:
    """PSNR (dB) and SSIM of the reference view; equal pictures have no PSNR, which is left out."""
    figures = {"psnr": float(psnr(rgb, reference)), "ssim": float(ssim(rgb, reference))}
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def as_bytes(picture: Float[Tensor, "h w 3"]) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return (picture.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def strip(pictures: Float[Tensor, "n h w 3"]) -> Float[Tensor, "h w2 3"]:
    """Pictures side by side."""
    return torch.cat(list(pictures), dim=1)
