"""Which cells of the scene's box hold something, and where rays enter and leave a box.

Notation: R rays with unit directions, t the distance along them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class OccupancyGrid(nn.Module):
    """Which cells of the box [-half_size, half_size]^3 hold something: a decaying maximum of a value per cell, thresholded.

    A fresh grid is occupied everywhere. The buffers are the whole state, so a checkpoint restores it exactly.
    """

    values: Tensor
    occupied: Tensor

    def __init__(self, resolution: int, half_size: float, device: torch.device | str) -> None:
        """resolution: cells of a side."""
        super().__init__()
        self.resolution, self.half_size = resolution, half_size
        self.register_buffer("values", torch.zeros(resolution**3, device=device))
        self.register_buffer("occupied", torch.ones(resolution**3, dtype=torch.bool, device=device))

    @torch.no_grad()
    def update(
        self,
        value_of: Callable[[Tensor], Tensor],
        threshold: float,
        decay: float,
        fraction: float,
        generator: torch.Generator,
    ) -> None:
        """Evaluate `value_of` (points (n, 3) -> values (n,)) at a random point of each chosen cell (source: Instant-NGP,
        Appendix C).

        A cell keeps max(value, old * decay) and counts as occupied above min(threshold, mean of all values). fraction: share of
        all cells drawn at random beside the occupied ones; 1 evaluates every cell.
        """
        device, resolution = self.values.device, self.resolution
        chosen = torch.arange(resolution**3, device=device)
        if fraction < 1:
            lucky = torch.rand(len(chosen), generator=generator, device=device) < fraction
            chosen = chosen[lucky | self.occupied]
        cells = torch.stack([chosen // resolution**2, chosen // resolution % resolution, chosen % resolution], dim=-1)
        jitter = torch.rand(cells.shape, generator=generator, device=device)
        fresh = value_of(((cells + jitter) / resolution * 2 - 1) * self.half_size)
        self.values[chosen] = torch.maximum(self.values[chosen] * decay, fresh)
        self.occupied.copy_(self.values > self.values.mean().clamp(max=threshold))

    def bounds(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Lowest and highest corner, world units, of the box around all occupied cells; an empty box at 0 if there is none."""
        cube = self.occupied.view(self.resolution, self.resolution, self.resolution)
        lower, upper = [], []
        for axes in ((1, 2), (0, 2), (0, 1)):
            filled = cube.any(dim=axes[1]).any(dim=axes[0]).nonzero()[:, 0]
            lower.append(filled[0] if len(filled) else filled.new_tensor(self.resolution / 2))
            upper.append(filled[-1] + 1 if len(filled) else filled.new_tensor(self.resolution / 2))
        corners = torch.stack([torch.stack(lower), torch.stack(upper)]).float()
        return tuple((corners / self.resolution * 2 - 1) * self.half_size)

    def at_steps(
        self, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], t: Float[Tensor, "r s"]
    ) -> Bool[Tensor, "r s"]:
        """Whether the points origins + t * directions lie in occupied cells; points outside take the nearest cell's answer."""
        scale = self.resolution / (2 * self.half_size)
        start, step = (origins + self.half_size) * scale, directions * scale
        index = torch.zeros_like(t, dtype=torch.int32)
        for axis in range(3):
            cell = torch.addcmul(start[:, axis, None], step[:, axis, None], t)
            index = index * self.resolution + cell.to(torch.int32).clamp_(0, self.resolution - 1)
        return self.occupied.index_select(0, index.view(-1)).view_as(t)


def t_range_from_box(
    origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], lower: Float[Tensor, "3"], upper: Float[Tensor, "3"]
) -> tuple[Float[Tensor, " r"], Float[Tensor, " r"]]:
    """Distances at which rays enter and leave a box (slab method), not before the origin; near >= far means a miss."""
    safe = torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (lower - origins) / safe, (upper - origins) / safe
    near = torch.minimum(first, second).amax(dim=-1).clamp(min=0)
    return near, torch.maximum(first, second).amin(dim=-1)
