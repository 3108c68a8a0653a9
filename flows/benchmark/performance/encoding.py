"""A multiresolution hash encoding in plain torch operations, as nerfstudio computes it where it has no CUDA extension.

Written from the formulas of Instant-NGP (arXiv:2201.05989, Sec. 3): every level is hashed into a table of its own, the eight corners of
a point's cell are gathered at once, and autograd differentiates it all. What ours is measured beside; no stage uses it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

PRIMES = (1, 2654435761, 805459861)


class TorchHashEncoding(nn.Module):
    """Points in [0, 1]^3 to `n_levels * n_features` numbers."""

    def __init__(self, n_levels: int, n_features: int, table_size: int, resolutions: Sequence[int]) -> None:
        """table_size: entries of every level. resolutions: cells of a side, level by level."""
        super().__init__()
        self.size = table_size
        self.table = nn.Parameter((torch.rand(n_levels, table_size, n_features) * 2 - 1) * 1e-4)
        self.register_buffer("scales", torch.tensor(resolutions, dtype=torch.float32))
        bits = [[index >> axis & 1 for axis in range(3)] for index in range(8)]
        self.register_buffer("corners", torch.tensor(bits))
        self.register_buffer("primes", torch.tensor(PRIMES))

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n f"]:
        """Trilinear interpolation of the tables' entries at the corners of each level's cell."""
        place = points[:, None] * self.scales[:, None]
        cell = place.floor()
        inside = (place - cell)[:, :, None]
        factors = (cell.long()[:, :, None] + self.corners) * self.primes
        index = (factors[..., 0] ^ factors[..., 1] ^ factors[..., 2]) % self.size
        levels = torch.arange(len(self.scales), device=points.device)[None, :, None]
        entries = self.table[levels, index]
        weights = torch.where(self.corners.bool(), inside, 1 - inside).prod(-1, keepdim=True)
        return (weights * entries).sum(2).flatten(1)
