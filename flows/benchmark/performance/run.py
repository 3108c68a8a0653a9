"""A whole run's seconds, stage by stage, and how much of them the priors' U-Nets take: the part that the method cannot do without."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from flows.runs.chain import CHAIN
from flows.runs.console import say
from flows.runs.create import new_run
from schemas.artifacts import Artifact, StageName
from schemas.runs import STAGES
from stages.runtime.command import compute_recorded
from stages.runtime.context import context_of

NETWORK = "UNet2DConditionModel"
"""The class of the networks that count."""


@dataclass(frozen=True)
class StageTime:
    """seconds: of the stage, scores and previews of steps left out. in_networks: of these, in forward passes of U-Nets; the LoRA's
    backward passes are not among them. passes: how many."""

    name: StageName
    seconds: float
    in_networks: float
    passes: int

    @property
    def share(self) -> float:
        """Of the seconds, 0..1."""
        return self.in_networks / self.seconds if self.seconds > 0 else 0.0


class _Clock:
    """Seconds inside the networks."""

    def __init__(self) -> None:
        self.seconds, self.passes, self._begun = 0.0, 0, 0.0

    def begin(self, module: Any, inputs: Any) -> None:
        """A network is called."""
        if type(module).__name__ == NETWORK:
            _wait_for_gpu()
            self._begun = time.perf_counter()

    def end(self, module: Any, inputs: Any, output: Any) -> None:
        """It has answered."""
        if type(module).__name__ == NETWORK:
            _wait_for_gpu()
            self.seconds += time.perf_counter() - self._begun
            self.passes += 1


def _wait_for_gpu() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def clocked() -> Iterator[_Clock]:
    """A clock of all U-Net calls inside."""
    clock = _Clock()
    hooks = [register_module_forward_pre_hook(clock.begin), register_module_forward_hook(clock.end)]
    try:
        yield clock
    finally:
        for hook in hooks:
            hook.remove()


def measured_run(prompt: str, preset: str, overrides: Sequence[str]) -> list[StageTime]:
    """Compute a prompt's stages one after the other in a temporary store, and time them. Raises what stages raise."""
    found: list[StageTime] = []
    with tempfile.TemporaryDirectory(prefix="dreampolish-bench-") as folder:
        store = Path(folder)
        record = new_run(store, prompt, preset, overrides, image=None)
        context = context_of(record, store, tracking_uri=None, show_progress=False).model_copy(update={"log_steps": False})
        artifacts: dict[StageName, Artifact] = {}
        for name in STAGES:
            with clocked() as clock:
                artifacts[name] = compute_recorded(CHAIN[name], record, context, artifacts)
            found.append(StageTime(name, artifacts[name].seconds, clock.seconds, clock.passes))
            say(
                f"{name:<10} {found[-1].seconds:7.1f} s, {found[-1].share:.0%} in {clock.passes} passes of the priors' networks"
            )
    return found
