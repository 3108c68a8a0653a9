"""Who watches a stage's fit: metrics and pictures to the tracker, the switch criterion, and a requested stop."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.context import Stage

LOG_INTERVAL = 5
"""Steps between two logged points of a curve."""


class Figures(dict[str, float]):
    """Figures of the latest step, restorable, so that a stage resumed at its last step still has them."""

    def state_dict(self) -> dict[str, float]:
        """A copy."""
        return dict(self)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore what `state_dict` gave."""
        self.clear()
        self.update(state)


class StageWatch:
    """An observer of `optimize.fit` for one stage.

    preview: gives the picture (H, W, 3) in [0, 1] that the tracker shows, every `preview_interval` steps. switch: gives the reason
    to hand over early, or None; it is asked after every step with the step's losses.
    """

    def __init__(
        self,
        stage: Stage,
        steps: int,
        preview_interval: int,
        preview: Callable[[], Float[Tensor, "h w 3"]],
        switch: Callable[[int, Mapping[str, float]], str | None] | None,
    ) -> None:
        self._stage, self._steps, self._interval = stage, steps, preview_interval
        self._preview, self._switch = preview, switch
        self.extra = Figures()
        """Figures of the current step beside its losses; the stage fills it inside `losses`."""

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        """Log, show and ask whether to hand over."""
        if step % LOG_INTERVAL == 0 or step == self._steps:
            self._stage.log(step, {**values, **self.extra})
        self._stage.progress(step, self._steps)
        if step % self._interval == 0 or step == self._steps:
            with torch.no_grad():
                self._stage.image("view", step, as_bytes(self._preview()))
        return None if self._switch is None else self._switch(step, values)

    def stop_requested(self) -> bool:
        """True once somebody asked the stage to stop."""
        return self._stage.stop_requested()


def as_bytes(picture: Float[Tensor, "h w 3"]) -> np.ndarray:
    """uint8 (H, W, 3)."""
    return (picture.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def strip(pictures: Float[Tensor, "n h w 3"]) -> Float[Tensor, "h w2 3"]:
    """Pictures side by side."""
    return torch.cat(list(pictures), dim=1)
