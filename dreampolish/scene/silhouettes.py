"""Several outlines of one object: whether any shape explains them all, and the poses and frames under which it does best.

The visual hull (Laurentini 1994) is never built: a pixel of one outline is explained where some point on its ray lies inside every
other outline. How far the others would have to grow for that is what poses and frames are fitted by.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from dreampolish.scene.cameras import (
    FRAMING_HALF_HEIGHT,
    SCENE_HALF_SIZE,
    Cameras,
    orbit_cameras,
    pixels_from_points_camera,
    points_camera_from_world,
)


@dataclass(frozen=True)
class Frames:
    """How N pictures lie in their cameras' frames: scaled about the middle, then moved right and down, as shares of the side."""

    scale: Float[Tensor, " n"]
    shift: Float[Tensor, "n 2"]

    def to_camera(self, picture: int, pixels: Float[Tensor, "p 2"], size: int) -> Float[Tensor, "p 2"]:
        """Places (column, row) of a picture in its camera's frame."""
        return (pixels - size / 2) * self.scale[picture] + size / 2 + self.shift[picture] * size

    def to_picture(self, picture: int, pixels: Float[Tensor, "p 2"], size: int) -> Float[Tensor, "p 2"]:
        """The way back."""
        return (pixels - size / 2 - self.shift[picture] * size) / self.scale[picture] + size / 2


def unmoved(n: int) -> Frames:
    """Pictures that lie in their frames as they are."""
    return Frames(torch.ones(n), torch.zeros(n, 2))


@dataclass(frozen=True)
class Fit:
    """Poses, degrees, and frames of N pictures; misfit: mean pixels by which outlines would have to grow to explain each other."""

    azimuth_deg: Float[Tensor, " n"]
    elevation_deg: Float[Tensor, " n"]
    frames: Frames
    misfit: float


def distance_outside(masks: Bool[Tensor, "n s s"]) -> Float[Tensor, "n s s"]:
    """Distance of every pixel's centre from the outline's nearest pixel, pixels; 0 inside."""
    return torch.from_numpy(np.stack([ndimage.distance_transform_edt(~mask) for mask in masks.numpy()])).float()


@dataclass(frozen=True)
class Outlines:
    """N outlines of one object, in their cameras' frames. outside: `distance_outside`."""

    outside: Float[Tensor, "n s s"]
    cameras: Cameras
    frames: Frames

    def missing(self, picture: int, pixels: Float[Tensor, "p 2"]) -> Float[Tensor, " p"]:
        """Pixels by which the others would have to grow for a point on the ray of each pixel (column, row) to lie in all of them.

        Differentiable in cameras and frames.
        """
        size = self.outside.shape[1]
        points = _points_on_rays(self.cameras[[picture]], self.frames.to_camera(picture, pixels, size), size)
        return self.furthest(points, but=picture)

    def furthest(self, points: Float[Tensor, "p d 3"], but: int | None) -> Float[Tensor, " p"]:
        """Of each ray's points that one which lies least outside of all outlines, or all but one: how far, pixels."""
        n, size = self.outside.shape[:2]
        furthest = torch.zeros(points.shape[:2])
        for other in (each for each in range(n) if each != but):
            camera = self.cameras[[other]]
            seen = pixels_from_points_camera(points_camera_from_world(points.reshape(-1, 3), camera), camera)[0]
            grid = (self.frames.to_picture(other, seen, size) / size * 2 - 1).reshape(1, *points.shape[:2], 2)
            found = torch.nn.functional.grid_sample(
                self.outside[None, [other]], grid, padding_mode="border", align_corners=False
            )
            furthest = torch.maximum(furthest, found[0, 0] * self.frames.scale[other])
        return furthest.min(dim=1).values


def contradiction(masks: Bool[Tensor, "n s s"], cameras: Cameras, tolerance: float) -> Float[Tensor, " n"]:
    """Of each outline, the share of pixels that no shape inside all others explains, 0..1; 0 for an empty one.

    tolerance: pixels by which an outline may be off.
    """
    outlines = Outlines(distance_outside(masks), cameras, unmoved(len(masks)))
    missing = [outlines.missing(picture, mask.nonzero().flip(1) + 0.5) for picture, mask in enumerate(masks)]
    return torch.stack([(each > tolerance).float().mean() for each in missing]).nan_to_num()


def hull_outlines(masks: Bool[Tensor, "n s s"], cameras: Cameras, views: Cameras, tolerance: float) -> Bool[Tensor, "m v v"]:
    """What the largest shape that fits all outlines, grown by `tolerance` pixels, covers in other views of any size."""
    outlines, size = Outlines(distance_outside(masks), cameras, unmoved(len(masks))), views.size
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    away = [outlines.furthest(_points_on_rays(views[[view]], pixels, size), but=None) for view in range(len(views))]
    return torch.stack(away).reshape(-1, size, size) <= tolerance


def _points_on_rays(camera: Cameras, pixels: Float[Tensor, "p 2"], size: int) -> Float[Tensor, "p d 3"]:
    """World points through the scene on the rays of one camera's pixels, a pixel's width apart."""
    half = torch.tan(torch.deg2rad(camera.fov_deg) / 2)
    offset = (pixels / size * 2 - 1) * half
    directions = torch.stack([offset[:, 0], -offset[:, 1], -torch.ones(len(pixels))], dim=-1)
    directions = directions @ camera.world_from_camera[0, :3, :3].T
    middle = FRAMING_HALF_HEIGHT / half
    depths = middle + torch.linspace(-SCENE_HALF_SIZE, SCENE_HALF_SIZE, size)
    return camera.world_from_camera[0, :3, 3] + depths[None, :, None] * directions[:, None]


@dataclass(frozen=True)
class FitSizes:
    """How poses and frames are fitted; the settings `reference.poses.fit`.

    steps, rate: of Adam; its unknowns are in degrees and in pixels of a picture of UNIT a side. pixels: how many of each outline are
    asked. most_turn_deg, most_move: most by which angles may change, and frames, as a share of the side. pull: weight of the square of a
    change, which leaves alone what no outline decides.
    """

    steps: int
    rate: float
    pixels: int
    most_turn_deg: float
    most_move: float
    pull: float


def fitted(
    masks: Bool[Tensor, "n s s"],
    azimuth_deg: Float[Tensor, " n"],
    elevation_deg: Float[Tensor, " n"],
    fov_deg: float,
    sizes: FitSizes,
    turned: bool,
    framed: bool,
) -> Fit:
    """The poses (where `turned`) and frames (where `framed`) of all pictures but the first, under which the outlines agree best.

    The first one is what the others are fitted to. Where nothing agrees better than what was given, that is returned.
    """
    n, size = masks.shape[:2]
    outside, rims = distance_outside(masks), [_rim(mask, sizes.pixels) for mask in masks]
    unknown = torch.zeros(n, 5, requires_grad=True)
    free = torch.tensor([turned, turned, framed, framed, framed]).float() * (torch.arange(n) > 0)[:, None]
    most = torch.tensor([sizes.most_turn_deg] * 2 + [sizes.most_move * UNIT] * 3)

    def placed() -> tuple[Tensor, Tensor, Frames]:
        change = most * torch.tanh(unknown / most) * free
        frames = Frames((change[:, 2] / (UNIT / 2)).exp(), change[:, 3:] / UNIT)
        return azimuth_deg + change[:, 0], (elevation_deg + change[:, 1]).clamp(-89, 89), frames

    def misfit() -> Tensor:
        azimuth, elevation, frames = placed()
        outlines = Outlines(outside, orbit_cameras(azimuth, elevation, torch.full((n,), fov_deg), size), frames)
        return torch.stack([outlines.missing(each, rim).mean() for each, rim in enumerate(rims)]).mean()

    with torch.no_grad():
        best = given = Fit(azimuth_deg, elevation_deg, unmoved(n), float(misfit()))
    least = given.misfit
    if least == 0 or not (turned or framed):
        return given
    optimizer = torch.optim.Adam([unknown], lr=sizes.rate)
    for step in range(sizes.steps):
        optimizer.param_groups[0]["lr"] = sizes.rate * (1 - step / sizes.steps)
        value = misfit()
        loss = value + sizes.pull * (unknown * free).square().sum(dim=1).mean()
        if float(loss.detach()) < least:
            least, (azimuth, elevation, frames) = float(loss.detach()), placed()
            kept = Frames(frames.scale.detach(), frames.shift.detach())
            best = Fit(azimuth.detach(), elevation.detach(), kept, float(value.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best


UNIT = 128
"""Pixels of a side in which the unknowns of frames are counted: there a step of one is about as much as a degree."""


def _rim(mask: Bool[Tensor, "s s"], most: int) -> Float[Tensor, "p 2"]:
    """At most `most` of an outline's pixels (column, row), evenly along its rows."""
    inner = torch.from_numpy(ndimage.binary_erosion(mask.numpy()))
    places = (mask & ~inner).nonzero().flip(1) + 0.5
    return places[:: max(1, -(-len(places) // most))]
