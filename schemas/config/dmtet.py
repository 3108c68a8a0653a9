"""Settings of the DMTet stage: an explicit mesh over a tetrahedral grid."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.config.shared.geometry import Floor, GeometryConfig, GridConfig, ImageSize
from schemas.config.shared.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared.schedule import Ramp, Weight, constant


class LightConfig(Frozen):
    """How the studio's light in a surface's colours is measured (stages/guidance/studio_light.py)."""

    near: float = Field(default=0.1, gt=0.0, le=2.0)
    """Distance of chromaticities (colour / sum of channels) up to which a place has the reference's main colour."""
    least_share: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of the places that must have the main colour for the light to be measured."""
    least_normal_up: float = Field(default=-0.5, ge=-1.0, le=1.0)
    """Places whose unit normal has a smaller upward part (-1..1) do not count."""
    smoothing_rounds: int = Field(default=8, ge=0, le=1000)
    """Rounds in which the normals that light falls on are smoothed."""


class DmtetConfig(GeometryConfig):
    """An explicit mesh over a tetrahedral grid."""

    steps: int = Field(default=200, ge=0)
    """Steps of the stage; 0: the stage only extracts the mesh."""
    tet_resolution: int = Field(default=96, ge=8, le=256)
    """Cells of a side of the tetrahedral grid."""
    guidance_size: ImageSize = 128
    geometry_lr: float = Field(default=0.001, gt=0.0)
    """Adam's learning rate of the signed distances and the vertices' offsets."""
    gradient_floor: Floor = 0.05
    """Adam's epsilon for the shape, as a share of the largest root mean square gradient; 0: plain Adam."""
    color_lr: float = Field(default=0.001, gt=0.0)
    """Adam's learning rate of the colour field."""
    mask_erosion: int = Field(default=2, ge=0, le=256)
    """Pixels by which the reference's mask shrinks before its colours are learned."""
    guide_colors: bool = False
    """Whether the priors' scores change colours too, or only the shape."""
    hold_colors_weight: Weight = constant(5.0)
    """Weight of the mean change of the surface's colours from the SDF's."""
    held_points: int = Field(default=4096, ge=1)
    """Places in one step at which the surface's colours are held to the SDF's."""
    color_fit_lr: float = Field(default=0.01, gt=0.0)
    """Adam's learning rate while the colour field is fitted to the SDF's colours."""
    drawn_light: Literal["studio", "unknown"] = "studio"
    """The light in drawn references. "studio": what the SDF's colours show of it is measured and removed; "unknown": it is kept."""
    light: LightConfig = LightConfig()
    """How the light in drawn references is measured."""
    normal_guidance_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the steps in which the text prior sees the normal map, not the colours."""
    normal_consistency_weight: Weight = constant(3.0)
    """Weight of the mean of 1 - cosine between the normals of neighbouring faces."""
    laplacian_weight: Weight = constant(0.0)
    """Weight of the vertices' mean square distance from their neighbours' mean."""
    crumb_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Components below this share of the largest one's area are dropped."""
    grid: GridConfig = GridConfig(n_levels=10)
    """Hash grid of the colour field, which polish and texture go on with."""
    color_fit_steps: int = Field(default=200, ge=1)
    """Steps that fit the colour field to the SDF's colours."""
    color_fit_batch: int = Field(default=8192, ge=1)
    """Places in one step of that fit."""
    color_fit_copies: int = Field(default=4, ge=1, le=64)
    """Places around each vertex at which that fit asks for colours, Gaussian with a standard deviation of one cell."""
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.0), t_min=constant(0.02), t_max=constant(0.5))
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0), t_min=constant(0.4), t_max=constant(0.7))
    targets: ViewTargetsConfig = ViewTargetsConfig(
        rgb_weight=constant(150.0),
        mask_weight=constant(100.0),
        inside_only=True,
        paint_at=(0.0, 0.5),
        strength=Ramp(start=0.5, end=0.3),
    )
