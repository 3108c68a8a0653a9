"""A hash grid under a network of one hidden layer: the body of every field, with its spatial gradient in closed form."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dreampolish.fields.hash_grid import GridSizes, HashGrid, kernels_suit

Activation = Literal["relu", "softplus"]

SOFTPLUS_BETA = 100.0
"""Sharpness of the softplus (source: NeuS, arXiv:2106.10689: a rounded ReLU, so that normals are continuous)."""


class GridNetwork(nn.Module):
    """points -> grid features -> hidden layer -> `n_outputs` linear outputs."""

    def __init__(
        self, sizes: GridSizes, hidden_width: int, n_outputs: int, activation: Activation, generator: torch.Generator
    ) -> None:
        """Weights start uniform (He bound for the hidden layer, a small bound for the output), biases at zero."""
        super().__init__()
        self.grid = HashGrid(sizes, generator)
        self.activation = activation
        self.points_at_once: int | None = None
        """Points whose features are kept at once; those of the others are computed again on the way back. None: all are kept."""
        device = generator.device
        # skip_init: PyTorch's own initialisation would draw from the global generator.
        self.hidden = nn.utils.skip_init(nn.Linear, self.grid.n_outputs, hidden_width, device=device)
        self.output = nn.utils.skip_init(nn.Linear, hidden_width, n_outputs, device=device)
        with torch.no_grad():
            for layer, bound in ((self.hidden, math.sqrt(6 / self.grid.n_outputs)), (self.output, math.sqrt(1 / hidden_width))):
                layer.weight.copy_((torch.rand(layer.weight.shape, generator=generator, device=device) * 2 - 1) * bound)
                layer.bias.zero_()

    def _activate(self, hidden: Tensor) -> Tensor:
        if self.activation == "relu":
            return torch.relu(hidden)
        return nn.functional.softplus(hidden, beta=SOFTPLUS_BETA)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n c"]:
        """Raw outputs; differentiable in parameters and points."""
        if self._has_kernels(points):
            return self._by_kernels(points, with_gradient=False)[0]
        return self.output(self._activate(self.hidden(self.grid(points))))

    def with_gradient(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n 3"]]:
        """Raw outputs and the gradient of output 0 along x, y, z, both differentiable in the parameters.

        The gradient is output_row * activation'(h) * hidden_matrix * grid_jacobian, so no second backward pass is needed.
        Warning: the gradient is not differentiable in the points.
        """
        if self._has_kernels(points):
            return self._by_kernels(points, with_gradient=True)
        features, jacobian = self.grid.with_jacobian(points)
        hidden = self.hidden(features)
        slope = (hidden > 0).to(hidden.dtype) if self.activation == "relu" else torch.sigmoid(SOFTPLUS_BETA * hidden)
        feature_gradient = (slope * self.output.weight[0]) @ self.hidden.weight
        return self.output(self._activate(hidden)), (jacobian * feature_gradient).sum(dim=-1).t()

    def _has_kernels(self, points: Tensor) -> bool:
        return points.dtype == self.grid.table.dtype == torch.float32 and kernels_suit(points.device)

    def _by_kernels(self, points: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        """The same as plain torch does, in one function that keeps nothing of the hidden layer."""
        from dreampolish.kernels.grid_network import Network, Shape

        beta = None if self.activation == "relu" else SOFTPLUS_BETA
        weights = (self.hidden.weight, self.hidden.bias, self.output.weight, self.output.bias)
        shape = Shape(self.grid.levels(), beta, with_gradient)
        if self.points_at_once is None or len(points) <= self.points_at_once:
            return Network.apply(points, self.grid.table, shape, *weights)

        def some(part: Tensor) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = Network.apply(part, self.grid.table, shape, *weights)
            return found

        parts = [checkpoint(some, part, use_reentrant=False) for part in points.split(self.points_at_once)]
        return torch.cat([each[0] for each in parts]), torch.cat([each[1] for each in parts])
