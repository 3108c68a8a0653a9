"""Sets of six views, drawn anew without end: objects deformed and rendered into a pool, pictures painted and lit from it.

The pool lies on the device as bytes; some of its sets are rendered anew after every step, and a set is used a few times under other
colours, lights and captions. Conventions are those of data.dataset: studio light mostly, two thirds recoloured, white background.
Every draw comes from one generator on the device; nothing here waits for the device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from dreampolish.scene.lighting import blend_lighting, random_world_lighting, studio_lighting
from dreampolish.scene.shading import LUMA, MAX_SHADE, MIN_SHADE
from dreampolish.training.multiview.deform import deformed
from dreampolish.training.multiview.objects import Meshes, Tables
from dreampolish.training.multiview.raster import CHANNELS, GRAIN_SCALE, Scene, camera_rotations, vertex_normals

VIEWS, PIXELS, SUPERSAMPLING = 6, 128, 2
BRIGHTEST = 0.94
STUDIO_SHARE, LIT_SHARE, HEADLIGHT_SHARE = 0.7, 0.9, 0.3
USUAL_SHARE = 0.6
"""Share of sets in the usual poses (priors.multiview.SET_AZIMUTH_DEG), a little off them; the others have any poses."""
STRAIGHT_SHARE, FRONTAL_SHARE = 0.6, 0.75
"""Shares of first views from straight in front, and from there or within 30 degrees of it; the rest stand anywhere around."""
LIGHTS = 8192

Renderer = Callable[[Scene, int, int], Tensor]


@dataclass(frozen=True)
class LightBank:
    """Lights to choose from, made once: world-frame up, toward (M, 2, 3), strengths (M, 4); headlight (M,): fixed to the camera."""

    toward: Tensor
    strengths: Tensor
    headlight: Tensor


def light_bank(n: int, device: torch.device, seed: int) -> LightBank:
    """n lights as data.lighting.pair_lighting draws them."""
    generator = torch.Generator().manual_seed(seed)
    lit = torch.rand(n, generator=generator) < LIT_SHARE
    studio = torch.rand(n, generator=generator) < STUDIO_SHARE
    scene = blend_lighting(studio_lighting(n, generator), random_world_lighting(n, lit, generator), studio)
    head = ~studio & (torch.rand(n, generator=generator) < HEADLIGHT_SHARE)
    strength = (0.15 + 0.4 * torch.rand(n, generator=generator)) * torch.where(lit, 1.0, 0.25)
    none = torch.zeros(n)
    at_camera = torch.stack([1 - strength, none, strength, none], dim=1)
    strengths = torch.where(head[:, None], at_camera, scene.strengths)
    forward = torch.tensor([0.0, 0.0, 1.0]).expand(n, 2, 3)
    toward = torch.where(head[:, None, None], forward, scene.toward)
    return LightBank(toward.to(device), strengths.to(device), head.to(device))


def draw_poses(n: int, generator: torch.Generator) -> tuple[Float[Tensor, "n 6"], Float[Tensor, "n 6"]]:
    """Azimuths and elevations of n sets; the first view is where references stand."""
    device = generator.device

    def uniform(low: float | int, high: float | int, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    kind = uniform(0, 1, n)
    first = torch.where(
        kind < STRAIGHT_SHARE, uniform(-8, 8, n), torch.where(kind < FRONTAL_SHARE, uniform(-30, 30, n), uniform(-180, 180, n))
    )
    first_elevation = torch.where(kind < STRAIGHT_SHARE, uniform(5, 15, n), uniform(-5, 25, n))
    usual = uniform(0, 1, n, 1) < USUAL_SHARE
    # "Usual" is relative to the object's front, or to the reference where that stands elsewhere.
    base = torch.where(kind < STRAIGHT_SHARE, torch.zeros_like(first), first)[:, None]
    places = torch.tensor([90.0, 180.0, 270.0, 45.0, 225.0], device=device)
    spread = torch.tensor([8.0, 8.0, 8.0, 25.0, 25.0], device=device)
    near = base + places + spread * uniform(-1, 1, n, 5)
    raised = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0], device=device)
    near_elevation = (1 - raised) * uniform(0, 20, n, 5) + raised * uniform(28, 55, n, 5)
    anywhere = 72 * (torch.arange(5, device=device) + uniform(0, 1, n, 5)) + uniform(0, 360, n, 1)
    high = uniform(0, 1, n, 5) < 0.1
    any_elevation = torch.where(high, uniform(45, 70, n, 5), uniform(-10, 45, n, 5))
    azimuth = torch.where(usual, near, anywhere)
    elevation = torch.where(usual, near_elevation, any_elevation)
    return torch.cat([first[:, None], azimuth], dim=1), torch.cat([first_elevation[:, None], elevation], dim=1)


@dataclass(frozen=True)
class PaintedSets:
    """B sets: pictures (B, 6, 3, P, P) in [0, 1]; captions (B,) numbers; azimuth_deg, elevation_deg (B, 6); objects (B,)."""

    pictures: Tensor
    captions: Tensor
    azimuth_deg: Tensor
    elevation_deg: Tensor
    objects: Tensor


class SetPool:
    """Rendered sets on a device. size: how many; weights: how often each object is drawn (N,)."""

    def __init__(
        self,
        meshes: Meshes,
        tables: Tables,
        weights: Float[Tensor, " n"],
        renderer: Renderer,
        size: int,
        pixels: int,
        generator: torch.Generator,
    ) -> None:
        device = generator.device
        self._meshes, self._tables, self._renderer, self._generator = meshes, tables, renderer, generator
        self._sums = weights.double().cumsum(0).float().to(device)
        self._pixels, self._cursor, self.size = pixels, 0, size
        self.buffers = torch.zeros((size, VIEWS, len(CHANNELS), pixels, pixels), dtype=torch.uint8, device=device)
        self.objects = torch.zeros(size, dtype=torch.int64, device=device)
        self.azimuth_deg = torch.zeros(size, VIEWS, device=device)
        self.elevation_deg = torch.zeros(size, VIEWS, device=device)
        self._lights = light_bank(LIGHTS, device, seed=5)
        self.paint: Callable[..., Tensor] = painted_pictures

    def shrink(self, size: int) -> None:
        """Keep only so many sets, from the next renewal on."""
        self.size, self._cursor = size, 0
        self.buffers = self.buffers[:size]

    @torch.no_grad()
    def renew(self, n: int) -> None:
        """Render n sets in place of the oldest ones; n must divide the pool's size."""
        device = self._generator.device
        draws = torch.rand(n, generator=self._generator, device=device)
        objects = torch.searchsorted(self._sums, draws * self._sums[-1]).clamp(max=len(self._sums) - 1)
        azimuth, elevation = draw_poses(n, self._generator)
        scene = self.scene(objects, azimuth, elevation, changed=True)
        found = self._renderer(scene, self._pixels, SUPERSAMPLING)
        here = slice(self._cursor, self._cursor + n)
        self.buffers[here] = found.unflatten(0, (n, VIEWS))
        self.objects[here], self.azimuth_deg[here], self.elevation_deg[here] = objects, azimuth, elevation
        self._cursor = (self._cursor + n) % self.size

    def scene(self, objects: Tensor, azimuth: Tensor, elevation: Tensor, changed: bool) -> Scene:
        """The scene of some objects, each in another shape if `changed`."""
        points = self._meshes.points(objects)
        points = deformed(points, self._generator) if changed else points
        faces = self._meshes.faces[objects]
        device, n = points.device, len(objects)
        axis = torch.randn(n, 3, generator=self._generator, device=device) * torch.tensor([1.0, 1.0, 0.3], device=device)
        axis = torch.nn.functional.normalize(axis, dim=1)
        period = 0.07 + 0.08 * torch.rand(n, 1, generator=self._generator, device=device)
        wood = torch.cat([axis, period], dim=1)
        normals = vertex_normals(points, faces)
        return Scene(
            vertices=points.contiguous(),
            normals=normals,
            faces=faces,
            colors=self._meshes.colors[objects],
            wood=wood,
            azimuth_deg=azimuth,
            elevation_deg=elevation,
        )

    @torch.no_grad()
    def draw(self, n: int) -> PaintedSets:
        """n sets of the pool in new colours under new light."""
        rows = torch.randint(self.size, (n,), generator=self._generator, device=self._generator.device)
        objects = self.objects[rows]
        colors = self._draw_colors(objects)
        pictures = self.paint(*self._paint_arguments(rows, objects, colors))
        choice = torch.randint(self._tables.captions.shape[2], (n,), generator=self._generator, device=rows.device)
        captions = self._tables.captions[objects, colors, choice]
        return PaintedSets(
            pictures=pictures,
            captions=captions,
            azimuth_deg=self.azimuth_deg[rows],
            elevation_deg=self.elevation_deg[rows],
            objects=objects,
        )

    def _draw_colors(self, objects: Integer[Tensor, " b"]) -> Integer[Tensor, " b"]:
        """A colour of each object, by its table."""
        logits = self._tables.color_logits[objects]
        uniform = torch.rand(logits.shape, generator=self._generator, device=logits.device).clamp(1e-9, 1 - 1e-7)
        return (logits - (-uniform.log()).log()).argmax(dim=1)

    def _paint_arguments(self, rows: Tensor, objects: Tensor, colors: Tensor) -> tuple[Tensor, ...]:
        """What `painted_pictures` takes."""
        n, device = len(rows), rows.device
        shade = torch.randint(3, (n,), generator=self._generator, device=device)
        draw = torch.rand(n, 5, generator=self._generator, device=device)
        target = (self._tables.shades[colors, shade] * (1 + 0.16 * (draw[:, :1] - 0.5) + 0.04 * (draw[:, 1:4] - 0.5))).clamp(
            0, 1
        )
        light = torch.randint(LIGHTS, (n,), generator=self._generator, device=device)
        rotation = camera_rotations(self.azimuth_deg[rows], self.elevation_deg[rows])
        toward = torch.einsum("bkji,blj->bkli", rotation, self._lights.toward[light])
        head = self._lights.headlight[light]
        toward = torch.where(head[:, None, None, None], self._lights.toward[light][:, None], toward)
        return (
            self.buffers[rows],
            (colors > 0).float(),
            (colors == self._tables.wooden).float(),
            target,
            self._tables.luminance[objects],
            0.4 + 0.6 * draw[:, 4],
            rotation[..., 2, :],  # the world's up in each camera's frame
            toward,
            self._lights.strengths[light],
        )


def painted_pictures(
    buffers: Integer[Tensor, "b k c p p"],
    active: Float[Tensor, " b"],
    wooden: Float[Tensor, " b"],
    target: Float[Tensor, "b 3"],
    luminance: Float[Tensor, " b"],
    contrast: Float[Tensor, " b"],
    up: Float[Tensor, "b k 3"],
    toward: Float[Tensor, "b k 2 3"],
    strengths: Float[Tensor, "b 4"],
) -> Float[Tensor, "b k 3 p p"]:
    """Recoloured and lit pictures on white (data.shading.recolor, shade, on_white) of pooled buffers."""
    each = lambda value, dims: value.view(*value.shape, *[1] * dims)  # noqa: E731
    values = buffers.float()
    albedo, coverage, paint = values[:, :, :3] / 255, values[:, :, 6:7] / 255, values[:, :, 7:8] / 255
    normals = (values[:, :, 3:6] - 128) / 127
    bright = LUMA[0] * albedo[:, :, :1] + LUMA[1] * albedo[:, :, 1:2] + LUMA[2] * albedo[:, :, 2:3]
    ratio = bright / each(luminance.clamp(min=0.02), 4)
    strength = torch.where(luminance < 0.02, 0.0, contrast)
    factor = (1 + each(strength, 4) * (ratio - 1)).clamp(0.4, 1.6)
    new = (target[:, None, :, None, None] * factor).clamp(0, 1)
    albedo = albedo + paint * each(active, 4) * (new - albedo)
    grain = values[:, :, 8:9] / GRAIN_SCALE
    albedo = (albedo * (1 + paint * each(wooden, 4) * (grain - 1))).clamp(0, BRIGHTEST)
    dot = lambda one: (normals * one[..., None, None]).sum(dim=2, keepdim=True)  # noqa: E731
    s = strengths[:, :, None, None, None, None].unbind(1)
    shade = s[0] + s[1] * (1 + dot(up)) / 2
    shade = shade + s[2] * dot(toward[:, :, 0]).clamp(min=0) + s[3] * dot(toward[:, :, 1]).clamp(min=0)
    lit = (albedo * shade.clamp(MIN_SHADE, MAX_SHADE)).clamp(0, 1)
    return 1 - (1 - lit) * coverage
