"""The colour field of the texture stage."""

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreampolish.fields.grid_network import GridNetwork
from dreampolish.fields.hash_grid import ADAM_BETAS, ADAM_EPSILON, GridSizes


class ColorField(nn.Module):
    """points -> colour in [0, 1]; `network.grid.active_levels` adds detail from coarse to fine."""

    def __init__(self, grid_sizes: GridSizes, hidden_width: int, generator: torch.Generator) -> None:
        """The field starts mid-grey. The parameters live on the generator's device."""
        super().__init__()
        self.hidden_width = hidden_width
        self.network = GridNetwork(
            sizes=grid_sizes, hidden_width=hidden_width, n_outputs=3, activation="relu", generator=generator
        )

    @property
    def field_config(self) -> dict[str, Any]:
        """JSON-ready settings from which `color_field_from_config` rebuilds the field."""
        return {"grid_sizes": asdict(self.network.grid.sizes), "hidden_width": self.hidden_width}

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Colours in [0, 1]; differentiable in parameters and points."""
        return torch.sigmoid(self.network(points))


def color_field_from_config(config: dict[str, Any], device: torch.device | str) -> ColorField:
    """A field with the sizes of a `field_config`, its parameters meant to be loaded next."""
    generator = torch.Generator(device=device).manual_seed(0)
    return ColorField(GridSizes(**config["grid_sizes"]), int(config["hidden_width"]), generator)


def fit_colors(
    field: nn.Module,
    points: Float[Tensor, "n 3"],
    colors: Float[Tensor, "n 3"],
    steps: int,
    batch: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Fit a colour field to samples by mean squared error with Adam; returns the last batch's error (0 without steps)."""
    optimizer = torch.optim.Adam(field.parameters(), lr=learning_rate, betas=ADAM_BETAS, eps=ADAM_EPSILON)
    error = points.new_zeros(())
    for _ in range(steps):
        chosen = torch.randint(len(points), (batch,), generator=generator, device=points.device)
        error = (field(points[chosen]) - colors[chosen]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return error.detach()
