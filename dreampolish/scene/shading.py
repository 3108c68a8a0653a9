"""Light, colour and composition of geometry buffers, vectorised over a batch.

Notation: albedo (B, 3, H, W) in [0, 1], display-referred; normals_camera (B, 3, H, W) unit where covered; coverage and paint
(B, 1, H, W) in [0, 1]. Directions point from the object to the light. Nothing here reads global randomness.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.scene.lighting import Lighting

MIN_SHADE, MAX_SHADE = 0.45, 1.15
"""Bounds of the factor that light puts on a colour. [choice]"""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luminance (source: ITU-R BT.601)."""

LEAST_LUMINANCE = 0.02
"""Mean luminance of a paint below which it counts as flat. [choice]"""

MIN_CONTRAST, MAX_CONTRAST = 0.4, 1.6
"""Bounds of the factor that recoloured paint keeps of its own luminance. [choice]"""

GRAIN_AXIS = (1.0, 1.0, 0.3)
"""Standard deviations of the direction across wood's stripes: mostly level. [choice]"""

GRAIN_PERIOD = (0.07, 0.08)
"""Period of wood's stripes: least and range, world units. [choice]"""

GRAIN_BEND, GRAIN_BEND_RATE = 0.03, 9
"""How far stripes bend, world units, and radians per world unit along which they do. [choice]"""

GRAIN_FINE_RATE = 2.7
"""Rate of the fine stripes, in that of the coarse ones. [choice]"""

GRAIN_FACTORS = (0.98, 0.07, 0.04)
"""Mean factor of the grain, and heights of coarse and fine stripes. [choice]"""

FACING_TOWARD = (0.7, 0.45, 0.75)
"""Direction of the light that shows the shape of a mesh without colours, world frame. [choice]"""

LEAST_FACING = 0.55
"""How dark that light leaves what faces away, 0..1. [choice]"""


def facing_light(normals_world: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b h w 1"]:
    """The factor, LEAST_FACING..1, of a soft light from FACING_TOWARD on surfaces of unit normals."""
    toward = torch.nn.functional.normalize(torch.tensor(FACING_TOWARD, device=normals_world.device), dim=0)
    return LEAST_FACING + (1 - LEAST_FACING) * ((normals_world @ toward)[..., None] * 0.5 + 0.5)


def shade(normals_camera: Float[Tensor, "b 3 h w"], lighting_camera: Lighting) -> Float[Tensor, "b 1 h w"]:
    """The factor of Lambertian light on a colour, between MIN_SHADE and MAX_SHADE.

    ambient + sky (1 + n.up) / 2 + sum of strength max(n.l, 0).
    """
    cosines = torch.einsum("blc,bchw->blhw", lighting_camera.toward, normals_camera).clamp(min=0)
    upward = torch.einsum("bc,bchw->bhw", lighting_camera.up, normals_camera)
    s = lighting_camera.strengths[:, :, None, None]
    factor = s[:, 0] + s[:, 1] * (1 + upward) / 2 + s[:, 2] * cosines[:, 0] + s[:, 3] * cosines[:, 1]
    return factor.clamp(MIN_SHADE, MAX_SHADE)[:, None]


def on_white(colors: Float[Tensor, "b 3 h w"], coverage: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Colours over a white background, clamped to [0, 1]."""
    return colors.clamp(0, 1).sub_(1).mul_(coverage).add_(1)


def recolor(
    albedo: Float[Tensor, "b 3 h w"],
    paint: Float[Tensor, "b 1 h w"],
    target_rgb: Float[Tensor, "b 3"],
    mean_luminance: Float[Tensor, " b"],
    contrast: Float[Tensor, " b"],
) -> Float[Tensor, "b 3 h w"]:
    """Give painted pixels the target colour, keeping part of their relative luminance: target (1 + contrast (Y / mean - 1)).

    mean_luminance: of the paint over the object, so that several views of it agree; below 0.02 counts as flat. The ratio is
    bounded to 0.4..1.6. Partly painted pixels mix.
    """
    weights = albedo.new_tensor(LUMA).view(1, 3, 1, 1)
    luminance = (albedo * weights).sum(dim=1, keepdim=True)
    ratio = luminance / mean_luminance.clamp(min=LEAST_LUMINANCE).view(-1, 1, 1, 1)
    strength = torch.where(mean_luminance < LEAST_LUMINANCE, 0.0, contrast).view(-1, 1, 1, 1)
    factor = (1 + strength * (ratio - 1)).clamp(MIN_CONTRAST, MAX_CONTRAST)
    return albedo + paint * ((target_rgb[:, :, None, None] * factor).clamp(0, 1) - albedo)


def wood_grain(positions_world: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """A mild factor (0.8..1.15) of stripes that run through space, so that views of an object agree.

    positions_world: the surface points; one random orientation and period per picture.
    """
    n, device = len(positions_world), positions_world.device
    axis = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator) * torch.tensor(GRAIN_AXIS), dim=1).to(device)
    period = (GRAIN_PERIOD[0] + GRAIN_PERIOD[1] * torch.rand(n, 1, 1, generator=generator)).to(device)
    along = torch.einsum("bc,bchw->bhw", axis, positions_world)
    bend = GRAIN_BEND * torch.sin(GRAIN_BEND_RATE * positions_world.sum(dim=1))
    stripes = torch.sin(2 * torch.pi * (along + bend) / period)
    fine = torch.sin(2 * torch.pi * (along * GRAIN_FINE_RATE + bend) / period)
    return (GRAIN_FACTORS[0] + GRAIN_FACTORS[1] * stripes + GRAIN_FACTORS[2] * fine)[:, None]
