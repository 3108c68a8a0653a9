"""Random shapes from known ones: mirroring, stretching, tapering, twisting and a smooth cage, a whole batch at once.

Notation: S objects of V vertices, world frame, inside the sphere of radius BOUNDING_RADIUS. Padding vertices must repeat used ones.
Every draw comes from a generator on the vertices' device.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.data.library import BOUNDING_RADIUS

LARGEST_STRETCH, MILD_STRETCH = 0.3, 0.12
"""Bounds of the logarithm of each axis' factor: for a third of the objects, and for the others."""
LARGEST_CAGE, CAGE_SIDE = 0.045, 4
"""Deviation of the cage's points, world units, and how many there are along an axis."""
LARGEST_TAPER, LARGEST_TWIST = 0.25, 0.5
"""Change of the width per world unit of height over the radius, and turn in radians over it."""
ZOOM = (0.92, 1.05)
"""Bounds of an object's size beside BOUNDING_RADIUS."""


def deformed(vertices: Float[Tensor, "s v 3"], generator: torch.Generator) -> Float[Tensor, "s v 3"]:
    """Each object in another shape, centred and scaled anew. Half are mirrored, all are stretched; the rest goes with chance."""
    n, device = len(vertices), vertices.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device) * 2 - 1

    def chance(share: float) -> Tensor:
        return (torch.rand(n, 1, 1, generator=generator, device=device) < share).float()

    strong = chance(1 / 3)
    log_factor = uniform(n, 1, 3) * (LARGEST_STRETCH * strong + MILD_STRETCH * (1 - strong))
    points = vertices * log_factor.exp()
    mirrored = torch.cat([torch.ones_like(strong), 1 - 2 * chance(0.5), torch.ones_like(strong)], dim=-1)
    points = points * mirrored
    height = points[..., 2:] / BOUNDING_RADIUS
    points = points * torch.cat(
        [(1 + uniform(n, 1, 1) * LARGEST_TAPER * chance(0.4) * height).expand(-1, -1, 2), torch.ones_like(height)], dim=-1
    )
    points = _twisted(points, uniform(n, 1, 1) * LARGEST_TWIST * chance(0.15))
    cage = LARGEST_CAGE * torch.rand((n, 1, 1, 1, 1), generator=generator, device=device)
    offsets = torch.randn(n, 3, *[CAGE_SIDE] * 3, generator=generator, device=device) * cage
    points = points + caged(points, _symmetric(offsets, chance(0.75)[..., None, None])) * chance(0.6)
    return normalised(points, 1 + (ZOOM[0] - 1) + (ZOOM[1] - ZOOM[0]) * (uniform(n, 1, 1) + 1) / 2)


def _twisted(points: Float[Tensor, "s v 3"], turn: Float[Tensor, "s 1 1"]) -> Float[Tensor, "s v 3"]:
    """Turned about z by an angle that grows with height."""
    angle = turn[..., 0] * points[..., 2] / BOUNDING_RADIUS
    x, y, z = points.unbind(-1)
    return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y, z], dim=-1)


def _symmetric(offsets: Float[Tensor, "s 3 d h w"], share: Tensor) -> Float[Tensor, "s 3 d h w"]:
    """Offsets (x fastest) made alike left and right where share is 1: most things are."""
    turned = offsets.flip(3) * offsets.new_tensor([1.0, -1.0, 1.0]).view(1, 3, 1, 1, 1)
    return torch.where(share > 0, (offsets + turned) / 2, offsets)


def caged(points: Float[Tensor, "s v 3"], offsets: Float[Tensor, "s 3 d h w"]) -> Float[Tensor, "s v 3"]:
    """Offsets at points, trilinear between a cage's points over the box of the bounding sphere."""
    places = (points / BOUNDING_RADIUS)[:, None, None]
    found = torch.nn.functional.grid_sample(offsets, places, mode="bilinear", padding_mode="border", align_corners=True)
    return found[:, :, 0, 0].transpose(1, 2)


def normalised(points: Float[Tensor, "s v 3"], zoom: Float[Tensor, "s 1 1"]) -> Float[Tensor, "s v 3"]:
    """Box centred on the origin, farthest vertex at BOUNDING_RADIUS times `zoom`."""
    centred = points - (points.amin(dim=1, keepdim=True) + points.amax(dim=1, keepdim=True)) / 2
    radius = centred.norm(dim=-1, keepdim=True).amax(dim=1, keepdim=True)
    return centred * (BOUNDING_RADIUS * zoom / radius.clamp(min=1e-6))
