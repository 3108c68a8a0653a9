"""When a stage hands over to the next representation.

DreamPolish names no criterion. Ours [choice] is a plateau of the reference view's PSNR and of opacity entropy over a window, with a step
cap. `early` ends at the first step allowed, `late` at the cap.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dreampolish.metrics.pictures import psnr
from dreampolish.optim.regularizers import opacity_entropy_loss
from schemas.config.shared.geometry import SwitchConfig
from stages.guidance.reference_view import ReferenceView


class Handover:
    """Watches the reference view; call it as an observer's switch."""

    def __init__(self, config: SwitchConfig, steps: int) -> None:
        self._config, self._first = config, max(1, int(config.min_fraction * steps))
        self._psnr: list[float] = []
        self._entropy: list[float] = []

    def observe(self, rgb: Float[Tensor, "1 h w 3"], opacity: Float[Tensor, "1 h w"], view: ReferenceView) -> None:
        """Take in a render of the reference view."""
        self._psnr.append(float(psnr(rgb.detach(), view.rgb)))
        self._entropy.append(float(opacity_entropy_loss(opacity.detach())))
        keep = 2 * self._config.window
        self._psnr, self._entropy = self._psnr[-keep:], self._entropy[-keep:]

    def __call__(self, step: int, values: Mapping[str, float]) -> str | None:
        """The reason to hand over after `step` steps, or None."""
        if step < self._first or self._config.criterion == "late":
            return None
        if self._config.criterion == "early":
            return f"early: the first {self._config.min_fraction:.0%} of the steps are done"
        return self._plateau()

    def _plateau(self) -> str | None:
        """Both series have changed less than their tolerance between the last two windows."""
        window = self._config.window
        if len(self._psnr) < 2 * window:
            return None
        gains = [abs(_mean(series[-window:]) - _mean(series[-2 * window : -window])) for series in (self._psnr, self._entropy)]
        if gains[0] > self._config.psnr_tolerance_db or gains[1] > self._config.entropy_tolerance:
            return None
        return f"plateau: over {window} observations PSNR moved {gains[0]:.2f} dB and opacity entropy {gains[1]:.4f}"

    def state_dict(self) -> dict[str, Any]:
        """Both series, for checkpoints."""
        return {"psnr": self._psnr, "entropy": self._entropy}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._psnr, self._entropy = list(state["psnr"]), list(state["entropy"])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
