"""Adam that does not blow up what hardly pulls: for shapes, most of which no picture of a step shows."""

from collections.abc import Callable
from typing import Any

import torch

_LEAST_EPSILON = 1e-15
"""Epsilon of a group without gradients (source: Instant-NGP's Adam)."""


class FlooredAdam(torch.optim.Adam):
    """Adam whose epsilon is, in parameter groups with a `floor` above 0, that share of the group's largest root mean square gradient.

    Plain Adam moves a parameter by the learning rate however small its gradient is, so where a regulariser is alone it acts at full rate
    whatever its weight: it smooths away thin parts that pictures seldom touch. With a floor, what pulls less than the floor moves in
    proportion. source of the idea: AdamUniform of Large Steps in Inverse Rendering (Nicolet et al. 2021), one second moment for all
    vertices; a floor keeps Adam's own rate where pictures pull.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update."""
        for group in self.param_groups:
            if group.get("floor", 0.0) > 0:
                largest = max(self._largest(parameter, group["betas"][1]) for parameter in group["params"])
                group["eps"] = max(group["floor"] * largest, _LEAST_EPSILON)
        return super().step(closure)

    def _largest(self, parameter: torch.Tensor, decay: float) -> float:
        """The largest root of the running mean square gradients of a parameter; before the first update, its largest gradient."""
        state = self.state.get(parameter, {})
        if "exp_avg_sq" in state:
            return float((state["exp_avg_sq"].max() / (1 - decay ** float(state["step"]))).sqrt())
        return 0.0 if parameter.grad is None else float(parameter.grad.abs().max())
