"""Random soft light on a scene: ambient, a hemisphere and two directions, fixed in the world or at the camera.

Directions point from the object to the light.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.scene.cameras import Cameras

FLAT = 0.25
"""Share of a lit picture's contrast that a nearly flat one keeps. [choice]"""

RANDOM_ELEVATION_DEG = (15, 60)
"""Lowest elevation of random lamps and the width of its range, degrees. [choice]"""
FIRST_LAMP, SECOND_LAMP, SKY = (0.15, 0.30), 0.15, (0.08, 0.14)
"""Strengths of random lamps and sky: least and range (second lamp: range from 0). [choice]"""
SECOND_LAMP_SHARE = 0.5
"""Share of random lights with a second lamp. [choice]"""
AMBIENT = (1.04, 0.75, 0.6, 0.6)
"""Ambient light: the first number less these shares of lamps and sky, so that a lit front is at about 1. [choice]"""
HEADLIGHT = (0.15, 0.4)
"""Strength of a headlight: least and range. [choice]"""
WORLD_SHARE, PAIR_WORLD_SHARE = 0.8, 0.7
"""Shares of random lights that are fixed in the world, of single pictures and of pairs; the others are headlights. [choice]"""

STUDIO_AZIMUTH_DEG, STUDIO_ELEVATION_DEG = 35.0, 45.0
"""Where the studio's two lamps stand, left and right of the front, so that a mirrored picture is lit alike. [choice]"""
STUDIO_STRENGTHS = (0.5, 0.1, 0.3, 0.3)
"""Ambient, sky and lamps: a front is at 0.9, a top at 1.02, a side at 0.67, a back at 0.55. [choice]"""
STUDIO_LAMPS = (0.9, 0.2)
"""Factor on the studio's lamps: least and range. [choice]"""


@dataclass(frozen=True)
class Lighting:
    """Light of B scenes, world frame or camera frame: up (B, 3) and toward (B, 2, 3), unit; ambient, sky (hemisphere) and two
    directional strengths (B, 4)."""

    up: Float[Tensor, "b 3"]
    toward: Float[Tensor, "b 2 3"]
    strengths: Float[Tensor, "b 4"]

    def to(self, device: torch.device) -> "Lighting":
        """The same light on another device."""
        return Lighting(self.up.to(device), self.toward.to(device), self.strengths.to(device))


def _directions(azimuth_deg: Tensor, elevation_deg: Tensor) -> Tensor:
    """Unit vectors (..., 3) from azimuth and elevation, z up, degrees."""
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    return torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1)


def random_world_lighting(n: int, lit: Tensor, generator: torch.Generator) -> Lighting:
    """Soft light from above, fixed in the world: ambient, a hemisphere and two directions at elevation 15..75 degrees.

    lit: (n,) bool; False gives nearly flat light. The shade of a surface that faces the light is about 1.
    """
    azimuth = torch.rand(n, 2, generator=generator) * 360
    elevation = RANDOM_ELEVATION_DEG[0] + RANDOM_ELEVATION_DEG[1] * torch.rand(n, 2, generator=generator)
    draw = torch.rand(n, 3, generator=generator)
    first = FIRST_LAMP[0] + FIRST_LAMP[1] * draw[:, 0]
    second = SECOND_LAMP * draw[:, 1] * (draw[:, 2] < SECOND_LAMP_SHARE)
    sky = SKY[0] + SKY[1] * draw[:, 2]
    depth = torch.where(lit, 1.0, FLAT)
    first, second, sky = first * depth, second * depth, sky * depth
    ambient = AMBIENT[0] - AMBIENT[1] * first - AMBIENT[2] * second - AMBIENT[3] * sky
    up = torch.tensor([0.0, 0.0, 1.0]).expand(n, 3)
    return Lighting(up, _directions(azimuth, elevation), torch.stack([ambient, sky, first, second], dim=1))


def studio_lighting(n: int, generator: torch.Generator) -> Lighting:
    """The studio's light, world frame: the same for every object, but for a tenth of its lamps' strength.

    One light leaves less to guess than any light: what a small prior draws inside an outline is then the shape's own shading.
    """
    light = mean_studio_lighting(n)
    light.strengths[:, 2:] *= STUDIO_LAMPS[0] + STUDIO_LAMPS[1] * torch.rand(n, 1, generator=generator)
    return light


def mean_studio_lighting(n: int) -> Lighting:
    """The studio's light at its lamps' mean strength, world frame, on the CPU."""
    azimuth = torch.tensor([STUDIO_AZIMUTH_DEG, -STUDIO_AZIMUTH_DEG]).expand(n, 2)
    toward = _directions(azimuth, torch.full((n, 2), STUDIO_ELEVATION_DEG))
    return Lighting(torch.tensor([0.0, 0.0, 1.0]).expand(n, 3), toward, torch.tensor(STUDIO_STRENGTHS).repeat(n, 1))


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


def blend_lighting(first: Lighting, second: Lighting, use_first: Tensor) -> Lighting:
    """Per picture, one of two lightings."""
    one, three = use_first[:, None], use_first[:, None, None]
    return Lighting(
        torch.where(one, first.up, second.up),
        torch.where(three, first.toward, second.toward),
        torch.where(one, first.strengths, second.strengths),
    )


def random_camera_lighting(cameras: Cameras, lit_share: float, generator: torch.Generator) -> Lighting:
    """Camera-frame light: fixed in the world for 80 %, else a headlight; all but lit_share of each nearly flat."""
    n = len(cameras)
    lit = torch.rand(n, generator=generator) < lit_share
    world = lighting_in_camera(random_world_lighting(n, lit, generator), cameras.world_from_camera)
    strength = (HEADLIGHT[0] + HEADLIGHT[1] * torch.rand(n, generator=generator)) * torch.where(lit, 1.0, FLAT)
    return blend_lighting(world, headlight(n, strength), torch.rand(n, generator=generator) < WORLD_SHARE)


def studio_camera_lighting(cameras: Cameras, generator: torch.Generator) -> Lighting:
    """The studio's light in the frame of each camera."""
    return lighting_in_camera(studio_lighting(len(cameras), generator), cameras.world_from_camera)


def pair_lighting(cameras: Cameras, studio_share: float, lit_share: float, generator: torch.Generator) -> Lighting:
    """The same scene's light for reference and target (the two halves of `cameras`).

    The studio's for studio_share of the pairs; of the others, world-fixed random light for 70 %, else a headlight.
    """
    n = len(cameras) // 2
    lit = torch.rand(n, generator=generator) < lit_share
    studio = torch.rand(n, generator=generator) < studio_share
    scene = blend_lighting(studio_lighting(n, generator), random_world_lighting(n, lit, generator), studio)
    both = Lighting(scene.up.repeat(2, 1), scene.toward.repeat(2, 1, 1), scene.strengths.repeat(2, 1))
    strength = (HEADLIGHT[0] + HEADLIGHT[1] * torch.rand(n, generator=generator)) * torch.where(lit, 1.0, FLAT)
    use_world = studio | (torch.rand(n, generator=generator) < PAIR_WORLD_SHARE)
    return blend_lighting(
        lighting_in_camera(both, cameras.world_from_camera), headlight(2 * n, strength.repeat(2)), use_world.repeat(2)
    )
