"""The one training loop: weighted named losses, checkpoints, resumption, refusal of NaN, early stop on a reason.

A step is: losses(step) -> sum of weight * loss -> backward -> optimiser. Whatever a step does besides (occupancy updates,
LoRA fits) it does inside `losses`, with its state named in `stateful`, so that resumption is exact.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dreampolish.optim.checkpoints import Checkpoints


@runtime_checkable
class Stateful(Protocol):
    """Anything with a restorable state: modules, optimisers, detectors."""

    def state_dict(self) -> Mapping[str, Any]:
        """Nested tensors and scalars."""
        ...

    def load_state_dict(self, state_dict: Any) -> Any:
        """Restore what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class Term:
    """One unweighted scalar loss and its weight at this step."""

    loss: Tensor
    weight: float


@dataclass(frozen=True)
class FitResult:
    """How a fit ended: finished steps, why, and the step it resumed from (0 when it started fresh)."""

    steps: int
    reason: str
    resumed_from: int


class DivergedError(RuntimeError):
    """A loss or gradient became NaN or infinite; the message names term and step."""


class FitInterruptedError(RuntimeError):
    """A stop was requested; the state has been checkpointed."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}; checkpoint written")
        self.step = step


@runtime_checkable
class Observer(Protocol):
    """Who watches a fit."""

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        """Called after each step with the unweighted losses; a sentence ends the fit early and becomes its reason."""
        ...

    def stop_requested(self) -> bool:
        """True once somebody asked the computation to stop."""
        ...


class _Saved:
    """Optimiser, generator and every named stateful as one restorable state."""

    def __init__(self, optimizer: torch.optim.Optimizer, generator: torch.Generator, stateful: Mapping[str, Stateful]) -> None:
        self.optimizer, self.generator, self.stateful = optimizer, generator, stateful

    def state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "stateful": {name: item.state_dict() for name, item in self.stateful.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        if set(state["stateful"]) != set(self.stateful):
            raise ValueError(f"checkpoint holds {sorted(state['stateful'])}, this fit needs {sorted(self.stateful)}")
        for name, item in self.stateful.items():
            item.load_state_dict(state["stateful"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])


def fit(
    losses: Callable[[int], Mapping[str, Term]],
    optimizer: torch.optim.Optimizer,
    learning_rate_factor: Callable[[int], float],
    steps: int,
    generator: torch.Generator,
    stateful: Mapping[str, Stateful],
    checkpoints: Checkpoints | None,
    observer: Observer,
) -> FitResult:
    """Minimise the weighted sum of `losses` for at most `steps` steps.

    learning_rate_factor: multiplies every group's first learning rate at a step. stateful: what a checkpoint holds besides
    optimiser and generator; it must name the trained modules. Resumes from the newest whole checkpoint.
    Raises DivergedError on a NaN or infinite loss or gradient, FitInterruptedError after a requested stop.
    """
    saved = _Saved(optimizer, generator, stateful)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    first, ended = _resume(saved, checkpoints)
    reason: str | None = ended
    step = first
    while step < steps and reason is None:
        factor = learning_rate_factor(step)
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor
        values = _step(losses(step), optimizer, step)
        step += 1
        reason = observer.on_step(step, values)
        stop = observer.stop_requested()
        # The last step too: what follows the fit is then never worth the fit again.
        if checkpoints is not None and (stop or reason is not None or step == steps or checkpoints.due(step)):
            checkpoints.save(step, {**saved.state(), "reason": reason})
        if stop:
            raise FitInterruptedError(step)
    return FitResult(step, reason or f"step cap {steps}", first)


def _resume(saved: _Saved, checkpoints: Checkpoints | None) -> tuple[int, str | None]:
    latest = checkpoints.latest() if checkpoints is not None else None
    if latest is None:
        return 0, None
    step, state = latest
    saved.restore(state)
    return step, state["reason"]


def _step(terms: Mapping[str, Term], optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
    """One optimiser step on the weighted sum; returns the unweighted losses."""
    if not terms:
        return {}
    total = torch.stack([term.weight * term.loss for term in terms.values()]).sum()
    optimizer.zero_grad(set_to_none=True)
    if total.requires_grad:
        total.backward()
    values = _checked(terms, optimizer, step)
    if total.requires_grad:
        optimizer.step()
    return values


def _checked(terms: Mapping[str, Term], optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
    """The losses, if they and all gradients are finite. They are read in one copy: each makes a GPU's queue run empty."""
    norms = [
        parameter.grad.norm() for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None
    ]
    finite = torch.isfinite(torch.stack(norms)).all() if norms else torch.ones_like(next(iter(terms.values())).loss)
    losses = [term.loss.detach().double() for term in terms.values()]
    *read, all_finite = torch.stack([*losses, finite.detach().double()]).tolist()
    values = dict(zip(terms, read, strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise DivergedError(f"loss '{name}' became {value} at step {step}; try a lower learning rate or another seed")
    if not all_finite:
        raise DivergedError(f"a gradient became NaN or infinite at step {step}; try a lower learning rate or another seed")
    return values
