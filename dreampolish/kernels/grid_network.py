"""A hash grid under a network of one hidden layer as one function, with the gradient of output 0 along x, y, z on request.

The grid runs in kernels, for all points at once. The network runs in torch on a part of the points at a time, so that the hidden layer
stays in a CPU's cache and small beside a GPU's memory, and is computed again on the way back instead of being stored. Twin:
`GridNetwork` in `dreampolish/fields/grid_network.py` in float64.

Notation: N points, F features (levels times features a level), H hidden, f features, h = A f + a hidden before its activation,
outputs B act(h) + b, s = act'(h). The gradient of output 0 is g = J^T (A^T (s * B_0)), with J = df/dx of the grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from dreampolish.kernels.hash_grid import Levels, encode, table_gradient

_CHUNKS = {"cpu": 4096, "cuda": 2**18}
"""Points whose hidden layer is handled at once, by kind of device: 64 wide it takes 1 and 64 MiB. Each part starts some twenty kernels."""


@dataclass(frozen=True)
class Shape:
    """levels: of the grid. beta: sharpness of the softplus, None for ReLU. with_gradient: whether g is wanted."""

    levels: Levels
    beta: float | None
    with_gradient: bool


class Network(torch.autograd.Function):
    """Outputs (N, c) and g (N, 3), or (0, 3) where it is not wanted.

    Gradients are exact in table and weights. The points get the outputs' gradient alone. Weights: A (H, F), a (H), B (c, H), b (c); A may
    have more columns than the active levels have features, the rest count as 0.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, points: Tensor, table: Tensor, shape: Shape, *weights: Tensor) -> tuple[Tensor, Tensor]:
        """points (N, 3), table (C, entries), all float32 and on one device."""
        points, table = points.detach().contiguous(), table.detach().contiguous()
        encoded = encode(points, table, shape.levels, with_jacobian=shape.with_gradient).flatten(1, 2)
        first, first_bias, last, last_bias = _used(weights, encoded)
        outputs = table.new_empty(len(points), len(last))
        gradients = table.new_empty(len(points) if shape.with_gradient else 0, 3)
        for part in _parts(len(points), points.device):
            hidden = torch.addmm(first_bias, encoded[0, :, part].t(), first.t())
            active, slope = _activated(hidden, shape.beta)
            torch.addmm(last_bias, active, last.t(), out=outputs[part])
            if shape.with_gradient:
                pull = first.t() @ (slope * last[0]).t()
                gradients[part] = (encoded[1:, :, part] * pull).sum(dim=1).t()
        ctx.save_for_backward(points, table, encoded, *weights)
        ctx.shape = shape  # type: ignore[attr-defined]
        return outputs, gradients

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_outputs: Tensor, grad_gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of both outputs to table and weights, of the outputs to the points."""
        points, table, encoded, *weights = ctx.saved_tensors  # type: ignore[attr-defined]
        shape: Shape = ctx.shape  # type: ignore[attr-defined]
        grads = _Gradients(encoded, _used(tuple(weights), encoded), shape)
        for part in _parts(len(points), points.device):
            grads.add(part, grad_outputs[part], grad_gradients[part] if shape.with_gradient else None)
        grad_points = grad_table = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            whole = encoded if shape.with_gradient else encode(points, table, shape.levels, with_jacobian=True).flatten(1, 2)
            grad_points = (whole[1:] * grads.features).sum(dim=1).t()
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            along = (grads.pull, grad_gradients.contiguous()) if shape.with_gradient else None
            grad_table = table_gradient(points, table, shape.levels, features=grads.features, along=along)
        return grad_points, grad_table, None, *grads.of_weights(weights[0].shape[1])


class _Gradients:
    """What the network's backward pass adds up, a part of the points at a time."""

    def __init__(self, encoded: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor], shape: Shape) -> None:
        self._encoded, self._weights, self._shape = encoded, weights, shape
        self._sums = [torch.zeros_like(each) for each in weights]
        self.features = torch.empty_like(encoded[0])
        self.pull = torch.empty_like(encoded[0] if shape.with_gradient else encoded[0, :0])
        """A^T (s * B_0), (F, N)."""

    def add(self, part: slice, grad_outputs: Tensor, grad_gradients: Tensor | None) -> None:
        """One part: recompute the hidden layer, then the chain rule backwards."""
        first, first_bias, last, _ = self._weights
        of_first, of_first_bias, of_last, of_last_bias = self._sums
        features = self._encoded[0, :, part]
        active, slope = _activated(torch.addmm(first_bias, features.t(), first.t()), self._shape.beta)
        of_last.addmm_(grad_outputs.t(), active)
        of_last_bias.add_(grad_outputs.sum(dim=0))
        grad_hidden = (grad_outputs @ last).mul_(slope)
        if grad_gradients is not None:
            weighted = slope * last[0]
            self.pull[:, part] = first.t() @ weighted.t()
            grad_pull = (self._encoded[1:, :, part] * grad_gradients.t()[:, None]).sum(dim=0)
            of_first.addmm_(weighted.t(), grad_pull.t())
            grad_weighted = grad_pull.t() @ first.t()
            of_last[0].add_((grad_weighted * slope).sum(dim=0))
            if self._shape.beta is not None:
                bend = (1 - slope).mul_(weighted).mul_(self._shape.beta)
                grad_hidden.addcmul_(grad_weighted, bend)
        of_first.addmm_(grad_hidden.t(), features.t())
        of_first_bias.add_(grad_hidden.sum(dim=0))
        torch.mm(first.t(), grad_hidden.t(), out=self.features[:, part])

    def of_weights(self, n_columns: int) -> list[Tensor]:
        """Gradients of A, a, B and b; columns of inactive levels are 0."""
        first, *others = self._sums
        return [torch.nn.functional.pad(first, (0, n_columns - first.shape[1])), *others]


def _parts(n: int, device: torch.device) -> Iterator[slice]:
    """Slices of n points, some at a time."""
    at_once = _CHUNKS[device.type]
    return (slice(start, min(start + at_once, n)) for start in range(0, n, at_once))


def _used(weights: tuple[Tensor, ...], encoded: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weights without the columns of inactive levels."""
    first, first_bias, last, last_bias = (each.detach() for each in weights)
    return first[:, : encoded.shape[1]], first_bias, last, last_bias


def _activated(hidden: Tensor, beta: float | None) -> tuple[Tensor, Tensor]:
    """act(h) and its slope s.

    Softplus is relu(h) - log(max(s, 1 - s)) / beta, which the slope gives nearly for nothing; torch's own takes four times as long.
    """
    if beta is None:
        active = hidden.clamp(min=0)
        return active, (hidden > 0).to(hidden.dtype)
    slope = torch.sigmoid(beta * hidden)
    rest = torch.maximum(slope, 1 - slope).log_().div_(beta)
    return hidden.clamp_(min=0).sub_(rest), slope
