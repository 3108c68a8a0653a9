"""Light, colour and composition of geometry buffers, vectorised over a batch.

Notation: albedo (B, 3, H, W) in [0, 1], display-referred; normals_camera (B, 3, H, W) unit where covered; coverage and paint
(B, 1, H, W) in [0, 1]. Directions point from the object to the light. Nothing here reads global randomness.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MIN_SHADE, MAX_SHADE = 0.45, 1.15
"""Bounds of the factor that light puts on a colour."""

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Lighting:
    """Light of B scenes, world frame or camera frame: up (B, 3) and toward (B, 2, 3), unit; ambient, sky (hemisphere) and two
    directional strengths (B, 4)."""

    up: Float[Tensor, "b 3"]
    toward: Float[Tensor, "b 2 3"]
    strengths: Float[Tensor, "b 4"]


def _directions(azimuth_deg: Tensor, elevation_deg: Tensor) -> Tensor:
    """Unit vectors (..., 3) from azimuth and elevation, z up, degrees."""
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    return torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1)


def random_world_lighting(n: int, lit: Tensor, generator: torch.Generator) -> Lighting:
    """Soft light from above, fixed in the world: ambient, a hemisphere and two directions at elevation 15..75 degrees.

    lit: (n,) bool; False gives nearly flat light. The shade of a surface that faces the light is about 1.
    """
    azimuth = torch.rand(n, 2, generator=generator) * 360
    elevation = 15 + 60 * torch.rand(n, 2, generator=generator)
    draw = torch.rand(n, 3, generator=generator)
    first, second = 0.15 + 0.30 * draw[:, 0], 0.15 * draw[:, 1] * (draw[:, 2] < 0.5)
    sky = 0.08 + 0.14 * draw[:, 2]
    depth = torch.where(lit, 1.0, 0.15)
    first, second, sky = first * depth, second * depth, sky * depth
    ambient = 1.04 - 0.75 * first - 0.6 * second - 0.6 * sky
    up = torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    return Lighting(up, _directions(azimuth, elevation), torch.stack([ambient, sky, first, second], dim=1))


def lighting_in_camera(lighting: Lighting, world_from_camera: Float[Tensor, "b 4 4"]) -> Lighting:
    """World-fixed light in the frame of each camera."""
    rotation = world_from_camera[:, :3, :3]
    up = torch.einsum("bji,bj->bi", rotation, lighting.up)
    return Lighting(up, torch.einsum("bji,blj->bli", rotation, lighting.toward), lighting.strengths)


def headlight(n: int, strength: Float[Tensor, " n"]) -> Lighting:
    """Light from the camera, already in its frame: a surface that faces it is at 1, one at a right angle at 1 - strength."""
    forward = torch.tensor([0.0, 0.0, 1.0])
    none = torch.zeros_like(strength)
    strengths = torch.stack([1 - strength, none, strength, none], dim=1)
    return Lighting(forward.expand(n, 3), forward.expand(n, 2, 3), strengths)


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


def relight(
    albedo: Float[Tensor, "b 3 h w"],
    normals_camera: Float[Tensor, "b 3 h w"],
    coverage: Float[Tensor, "b 1 h w"],
    lighting_camera: Lighting,
) -> Float[Tensor, "b 3 h w"]:
    """Pictures under the given light on white."""
    return on_white(albedo * shade(normals_camera, lighting_camera), coverage)


def unlit(albedo: Float[Tensor, "b 3 h w"], coverage: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Pictures of the bare colours on white."""
    return on_white(albedo, coverage)


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
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    luminance = (albedo * weights).sum(dim=1, keepdim=True)
    ratio = luminance / mean_luminance.clamp(min=0.02).view(-1, 1, 1, 1)
    strength = torch.where(mean_luminance < 0.02, 0.0, contrast).view(-1, 1, 1, 1)
    factor = (1 + strength * (ratio - 1)).clamp(0.4, 1.6)
    return albedo + paint * ((target_rgb[:, :, None, None] * factor).clamp(0, 1) - albedo)


def painted_luminance(albedo: Float[Tensor, "b 3 h w"], paint: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """Mean luminance of the painted pixels; 0 where none is painted."""
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    luminance = (albedo * weights).sum(dim=1, keepdim=True)
    return (luminance * paint).sum(dim=(1, 2, 3)) / paint.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def wood_grain(positions_world: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """A mild factor (0.8..1.15) of stripes that run through space, so that views of an object agree.

    positions_world: the surface points; one random orientation and period per picture.
    """
    n = len(positions_world)
    axis = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.3]), dim=1)
    period = 0.07 + 0.08 * torch.rand(n, 1, 1, generator=generator)
    along = torch.einsum("bc,bchw->bhw", axis, positions_world)
    bend = 0.03 * torch.sin(9 * positions_world.sum(dim=1))
    stripes = torch.sin(2 * torch.pi * (along + bend) / period)
    fine = torch.sin(2 * torch.pi * (along * 2.7 + bend) / period)
    return (0.98 + 0.07 * stripes + 0.04 * fine)[:, None]
