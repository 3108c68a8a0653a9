"""The density field of the NeRF stage."""

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreampolish.fields.grid_network import GridNetwork
from dreampolish.fields.hash_grid import GridSizes


class DensityField(nn.Module):
    """density(x) = density_scale * softplus(network_0(x) + blob(x)); colour(x) = sigmoid(network_1..3(x)), the same from every
    side.

    blob(x) = blob_scale * exp(-|x|^2 / (2 blob_std^2)) - blob_offset: a centred start (source: DreamFusion, arXiv:2209.14988,
    with our offset, without which empty space would begin at softplus(0)).
    """

    def __init__(
        self,
        grid_sizes: GridSizes,
        hidden_width: int,
        density_scale: float,
        blob_scale: float,
        blob_std: float,
        blob_offset: float,
        generator: torch.Generator,
    ) -> None:
        """density_scale: per world unit. blob_std: world units. The parameters live on the generator's device."""
        super().__init__()
        self.density_scale, self.blob_scale, self.blob_std, self.blob_offset = density_scale, blob_scale, blob_std, blob_offset
        self.hidden_width = hidden_width
        self.network = GridNetwork(
            sizes=grid_sizes, hidden_width=hidden_width, n_outputs=4, activation="relu", generator=generator
        )

    @property
    def field_config(self) -> dict[str, Any]:
        """JSON-ready settings from which `density_field_from_config` rebuilds the field."""
        return {
            "grid_sizes": asdict(self.network.grid.sizes),
            "hidden_width": self.hidden_width,
            "density_scale": self.density_scale,
            "blob_scale": self.blob_scale,
            "blob_std": self.blob_std,
            "blob_offset": self.blob_offset,
        }

    def _blob(self, points: Tensor) -> Tensor:
        return self.blob_scale * torch.exp(-points.square().sum(dim=-1) / (2 * self.blob_std**2)) - self.blob_offset

    def _density(self, raw: Tensor, points: Tensor) -> Tensor:
        return self.density_scale * nn.functional.softplus(raw + self._blob(points))

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Density per world unit."""
        return self._density(self.network(points)[:, 0], points)

    def forward(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Density per world unit and colour in [0, 1]."""
        raw = self.network(points)
        return self._density(raw[:, 0], points), torch.sigmoid(raw[:, 1:])

    def with_normals(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Density, colour and unit world normals: the direction in which density falls; zero where it is level.

        Softplus is increasing, so the gradient before it has the density gradient's direction.
        """
        raw, gradient = self.network.with_gradient(points)
        bell = (self._blob(points) + self.blob_offset)[:, None]
        gradient = gradient - bell * points / self.blob_std**2
        return self._density(raw[:, 0], points), torch.sigmoid(raw[:, 1:]), -nn.functional.normalize(gradient, dim=-1)


def density_field_from_config(config: dict[str, Any], device: torch.device | str) -> DensityField:
    """A field with the sizes of a `field_config`, its parameters meant to be loaded next."""
    settings = {name: value for name, value in config.items() if name != "grid_sizes"}
    generator = torch.Generator(device=device).manual_seed(0)
    return DensityField(grid_sizes=GridSizes(**config["grid_sizes"]), generator=generator, **settings)
