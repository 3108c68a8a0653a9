"""A field together with its occupancy grid, and how both are rendered."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dreampolish.fields.density import DensityField
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.renderers.neus import NeusRender, render_sdf, update_surface_occupancy
from dreampolish.renderers.volume import VolumeRender, render_density
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras

LATER_SHARE = 0.1
"""Share of the empty cells that later updates look at. [choice]"""
EMPTY_CELL_OPACITY = 0.01
"""A step through an empty cell stops less than this share of the light. (source: instant-ngp's 0.01, arXiv:2201.05989)"""
DENSITY_TRANSMITTANCE, SDF_TRANSMITTANCE = 1e-2, 1e-3
"""Where rays end: what passes on is darker than that. A sharp surface leaves less behind it. [choice]"""
DECAY = 0.9
"""Of a cell's remembered density between two updates. (source: instant-ngp uses 0.95)"""


def step_size_for(samples_per_ray: int) -> float:
    """Length of an even step along the scene box's diagonal, world units."""
    return 2 * SCENE_HALF_SIZE * 3**0.5 / samples_per_ray


@dataclass
class DensityScene:
    """A density field, pictures on white. step_size: of a ray's even steps, world units. generator: for jitter and occupancy."""

    field: DensityField
    occupancy: OccupancyGrid
    step_size: float
    generator: torch.Generator

    def update_occupancy(self, step: int, *, early_steps: int) -> None:
        """Follow the field: every cell in the first `early_steps` steps, later the occupied ones and some others."""
        fraction = 1.0 if step < early_steps else LATER_SHARE
        threshold = EMPTY_CELL_OPACITY / self.step_size
        self.occupancy.update(
            value_of=self.field.density, threshold=threshold, decay=DECAY, fraction=fraction, generator=self.generator
        )

    def render(self, cameras: Cameras, *, with_normals: bool, stratified: bool) -> VolumeRender:
        """Pictures on white; stratified: with jitter along the rays."""
        white = torch.ones(3, device=self.generator.device)
        generator = self.generator if stratified else None
        return render_density(
            field=self.field,
            occupancy=self.occupancy,
            cameras=cameras,
            step_size=self.step_size,
            min_transmittance=DENSITY_TRANSMITTANCE,
            background=white,
            with_normals=with_normals,
            generator=generator,
        )

    def picture(self, cameras: Cameras) -> Tensor:
        """Colours alone, the same every time."""
        return self.render(cameras, with_normals=False, stratified=False).rgb


@dataclass(frozen=True)
class SdfScene:
    """A signed distance field, pictures on white. shell_parts: into how many parts a step near the surface is split."""

    field: SdfField
    occupancy: OccupancyGrid
    step_size: float
    shell_parts: int
    generator: torch.Generator

    def update_occupancy(self) -> None:
        """Follow the surface."""
        margin = max(3.0 / float(self.field.inverse_std.detach()), self.step_size)
        update_surface_occupancy(self.occupancy, self.field, margin, self.generator)

    def render(self, cameras: Cameras, *, stratified: bool) -> NeusRender:
        """Pictures on white, at NeuS's exact opacity: its cosine annealing helps a sphere find a shape, ours begins with one."""
        white = torch.ones(3, device=self.generator.device)
        generator = self.generator if stratified else None
        return render_sdf(
            field=self.field,
            occupancy=self.occupancy,
            cameras=cameras,
            step_size=self.step_size,
            parts=self.shell_parts,
            min_transmittance=SDF_TRANSMITTANCE,
            cosine_anneal=1.0,
            background=white,
            generator=generator,
        )

    def picture(self, cameras: Cameras) -> Tensor:
        """Colours alone, the same every time."""
        return self.render(cameras, stratified=False).picture.rgb
