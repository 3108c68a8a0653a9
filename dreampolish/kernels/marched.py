"""The steps that marching finds; apart from the kernels, so that naming them does not start Warp."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Marched:
    """N steps on R rays, by ray and by distance. ray_indices, slots: int64 (N). t: middles of the steps, float32 (N). points: (N, 3)."""

    ray_indices: Tensor
    slots: Tensor
    t: Tensor
    points: Tensor
