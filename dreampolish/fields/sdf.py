"""The signed distance field of the NeuS stage."""

import math
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreampolish.fields.grid_network import GridNetwork
from dreampolish.fields.hash_grid import GridSizes

_SDF_SCALE = 0.1
"""World units per unit of the network's output. [choice]"""

_SHARPNESS_SCALE = 10
"""The sharpness is learned as its logarithm over this, so that a rate of 0.001 moves it by 1 % a step (source: NeuS)."""

_LARGEST_INVERSE_STD = 5000.0
"""Largest sharpness, per world unit: floats cannot resolve a sharper surface."""


class SdfField(nn.Module):
    """sdf(x) = |x| - sphere_radius + 0.1 network_0(x), negative inside, world units; colour(x) = sigmoid(network_1..3(x)).

    A fresh field is the sphere, since the network starts near zero. `inverse_std`, learned, is the sharpness of the rendered
    surface (source: NeuS, arXiv:2106.10689, where it starts at exp(3)).
    """

    def __init__(
        self,
        grid_sizes: GridSizes,
        hidden_width: int,
        sphere_radius: float,
        initial_inverse_std: float,
        generator: torch.Generator,
    ) -> None:
        """sphere_radius: world units. initial_inverse_std: per world unit. The parameters live on the generator's device."""
        super().__init__()
        self.sphere_radius, self.initial_inverse_std, self.hidden_width = sphere_radius, initial_inverse_std, hidden_width
        self.network = GridNetwork(
            sizes=grid_sizes, hidden_width=hidden_width, n_outputs=4, activation="softplus", generator=generator
        )
        start = math.log(initial_inverse_std) / _SHARPNESS_SCALE
        self.sharpness = nn.Parameter(torch.tensor(start, device=generator.device))

    @property
    def field_config(self) -> dict[str, Any]:
        """JSON-ready settings from which `sdf_field_from_config` rebuilds the field."""
        return {
            "grid_sizes": asdict(self.network.grid.sizes),
            "hidden_width": self.hidden_width,
            "sphere_radius": self.sphere_radius,
            "initial_inverse_std": self.initial_inverse_std,
        }

    @property
    def inverse_std(self) -> Float[Tensor, ""]:
        """Sharpness of the logistic density around the surface, per world unit, at most 5000."""
        return torch.exp(_SHARPNESS_SCALE * self.sharpness).clamp(max=_LARGEST_INVERSE_STD)

    def _distance(self, raw: Tensor, points: Tensor) -> Tensor:
        return points.norm(dim=-1) - self.sphere_radius + _SDF_SCALE * raw

    def sdf(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Signed distance, world units; differentiable in parameters and points."""
        return self._distance(self.network(points)[:, 0], points)

    def color(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colour in [0, 1]."""
        return torch.sigmoid(self.network(points)[:, 1:])

    def forward(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Signed distance and colour."""
        raw = self.network(points)
        return self._distance(raw[:, 0], points), torch.sigmoid(raw[:, 1:])

    def with_gradient(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Signed distance, its spatial gradient (not normalised) and colour, all differentiable in the parameters.

        Warning: the gradient is not differentiable in the points.
        """
        raw, gradient = self.network.with_gradient(points)
        outward = points / points.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return self._distance(raw[:, 0], points), outward + _SDF_SCALE * gradient, torch.sigmoid(raw[:, 1:])


def sdf_field_from_config(config: dict[str, Any], device: torch.device | str) -> SdfField:
    """A field with the sizes of a `field_config`, its parameters meant to be loaded next."""
    settings = {name: value for name, value in config.items() if name != "grid_sizes"}
    generator = torch.Generator(device=device).manual_seed(0)
    return SdfField(grid_sizes=GridSizes(**config["grid_sizes"]), generator=generator, **settings)
