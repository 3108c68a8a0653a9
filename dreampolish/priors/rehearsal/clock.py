"""Time that score networks and autoencoders take of a computation, on the way there and back."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

NETWORKS = ("UNet2DConditionModel", "SD3Transformer2DModel", "FluxTransformer2DModel")
AUTOENCODERS = ("Encoder", "Decoder")
"""Classes that are timed: score networks, and the two halves of AutoencoderKL."""


def _mark(device: torch.device) -> Any:
    """This moment of a device's own order of work."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(begin: Any, end: Any) -> float:
    return float(end - begin) if isinstance(begin, float) else begin.elapsed_time(end) / 1000


@dataclass
class NetworkClock:
    """Spans of work by kind, "networks" and "autoencoders". A span is a pair of moments; the end may move on while gradients arrive."""

    device: torch.device
    spans: list[tuple[str, list[Any]]] = field(default_factory=list)
    _open: dict[int, Any] = field(default_factory=dict)
    _learning: set[int] = field(default_factory=set)
    _back: list[Any] | None = None

    def seconds(self, kind: str) -> float:
        """Of all spans of a kind so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return math.fsum(_seconds(*moments) for each, moments in self.spans if each == kind and len(moments) == 2)

    def reset(self) -> None:
        """Forget what was timed."""
        self.spans.clear()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time every network of a known class while the block runs."""
        hooks = [register_module_forward_pre_hook(self._begins), register_module_forward_hook(self._ends)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _begins(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if _kind(module) is not None:
            self._open[id(module)] = _mark(self.device)

    def _ends(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        kind = _kind(module)
        if kind is None or id(module) not in self._open:
            return
        self.spans.append((kind, [self._open.pop(id(module)), _mark(self.device)]))
        result = output if isinstance(output, Tensor) else getattr(output, "sample", None)
        if not isinstance(result, Tensor) or not result.requires_grad:
            return
        result.register_hook(lambda gradient: self._way_back_begins(kind))
        shown = next((each for each in inputs if isinstance(each, Tensor) and each.requires_grad), None)
        if shown is not None:
            shown.register_hook(lambda gradient: self._way_back_goes_on())
        elif id(module) not in self._learning:
            self._learning.add(id(module))
            for weight in module.parameters():
                if weight.requires_grad:
                    weight.register_post_accumulate_grad_hook(lambda weight: self._way_back_goes_on())

    def _way_back_begins(self, kind: str) -> None:
        self._back = [_mark(self.device)]
        self.spans.append((kind, self._back))

    def _way_back_goes_on(self) -> None:
        if self._back is not None:
            self._back[1:] = [_mark(self.device)]


def _kind(module: nn.Module) -> str | None:
    name = type(module).__name__
    return "networks" if name in NETWORKS else "autoencoders" if name in AUTOENCODERS else None
