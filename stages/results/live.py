"""An unfinished result, looked at while its stage goes on: views from all around, and its surface as a GLB with colours at its vertices.

Both are drawn only while somebody looks, and take at most a small share of the stage's time. They draw no random number and keep no
gradient, so a stage that is watched ends in the same bytes.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor
from trimesh.exchange.gltf import export_glb

from dreampolish.assets.asset import GLTF_FROM_WORLD
from dreampolish.assets.textured_mesh import linear_from_srgb
from dreampolish.fields.color import ColorField
from dreampolish.fields.density_to_sdf import automatic_level, density_lattice
from dreampolish.fields.lattice import lattice_points
from dreampolish.renderers.mesh import Mesh, color_of_field
from dreampolish.renderers.scenes import DensityScene, SdfScene
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras, turntable_cameras
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.surfaces import surface_of_lattice
from stages.runtime.tracking.live import LiveStage

N_VIEWS, SIZE, ELEVATION_DEG = 8, 128, 15.0
"""Of the views from all around, SIZE in pixels."""
LATTICE = 64
"""Points of a side at which a field is sampled for its surface: 0.021 world units apart."""
SHARE = 0.05
"""Of a stage's time that looking may take."""
LEAST_PAUSE_S = 4.0

Surface = tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"], Float[Tensor, "v 3"]]
"""Vertices in the world's frame, outward faces, colours in [0, 1]."""


@dataclass(frozen=True)
class Unfinished:
    """How the result of a running stage is looked at now. mesh raises ValueError where there is no surface yet."""

    render: Callable[[Cameras], Float[Tensor, "b h w 3"]]
    mesh: Callable[[], Surface]


def unfinished_density(scene: DensityScene) -> Unfinished:
    """A density field: its surface is the level set that looks most like its pictures, on a coarse lattice."""

    def mesh() -> Surface:
        densities = density_lattice(scene.field, scene.occupancy, LATTICE)
        level = automatic_level(
            densities=densities,
            blurred=densities,
            half_size=SCENE_HALF_SIZE,
            cameras=turntable_cameras(4, ELEVATION_DEG, REFERENCE_FOV_DEG, 48).to(densities.device),
            step_size=scene.step_size,
            n_levels=12,
        )
        vertices, faces = surface_of_lattice(level - densities)
        return vertices, faces, scene.field(vertices)[1]

    return Unfinished(scene.picture, mesh)


def unfinished_distance(scene: SdfScene) -> Unfinished:
    """A signed distance field."""

    def mesh() -> Surface:
        points = lattice_points(LATTICE, SCENE_HALF_SIZE, scene.field.network.grid.table.device)
        distances = torch.cat([scene.field.sdf(part) for part in points.split(2**18)]).view((LATTICE,) * 3)
        vertices, faces = surface_of_lattice(distances)
        return vertices, faces, scene.field.color(vertices)

    return Unfinished(scene.picture, mesh)


def unfinished_mesh(mesh_now: Callable[[], Mesh], colors: ColorField) -> Unfinished:
    """A mesh under a colour field."""

    def mesh() -> Surface:
        mesh = mesh_now()
        return mesh.vertices, mesh.faces, colors(mesh.vertices)

    return Unfinished(lambda cameras: mesh_now().render(cameras, color_of_field(colors), 1, smooth=True).rgb, mesh)


class Looking:
    """Shows an unfinished result now and then while somebody looks."""

    def __init__(self, live: LiveStage, unfinished: Unfinished, device: torch.device) -> None:
        self._live, self._unfinished, self._device = live, unfinished, device
        self._next = 0.0

    def after_step(self) -> None:
        """Draw, if somebody looks and it is time again."""
        began = time.monotonic()
        if began < self._next or not self._live.watched():
            return
        with torch.no_grad():
            self._live.picture("views", self._views().numpy())
            with suppress(ValueError):  # no surface yet
                self._live.mesh(glb_of_surface(*self._unfinished.mesh()))
        self._next = time.monotonic() + max(LEAST_PAUSE_S, (time.monotonic() - began) / SHARE)

    def _views(self) -> Float[Tensor, "h w 3"]:
        """The views side by side, on the CPU; one camera at a time to bound memory."""
        cameras = turntable_cameras(N_VIEWS, ELEVATION_DEG, REFERENCE_FOV_DEG, SIZE).to(self._device)
        views = [self._unfinished.render(cameras[[index]])[0] for index in range(N_VIEWS)]
        return torch.cat(views, dim=1).detach().cpu().clamp(0, 1)


def glb_of_surface(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], colors: Float[Tensor, "v 3"]) -> bytes:
    """A GLB in glTF's axes with normals, and colours of the vertices, which glTF 2.0 (3.7.2.1) wants linear."""
    linear = linear_from_srgb(colors.detach().cpu().clamp(0, 1))
    opaque = torch.cat([(linear * 255).round(), torch.full_like(linear[:, :1], 255)], dim=-1)
    mesh = trimesh.Trimesh(
        vertices.detach().cpu().numpy()[:, GLTF_FROM_WORLD],
        faces.detach().cpu().numpy(),
        vertex_colors=opaque.to(torch.uint8).numpy(),
        process=False,
    )
    return bytes(export_glb(trimesh.Scene(mesh), include_normals=True))
