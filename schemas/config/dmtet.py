"""Settings of the DMTet stage: an explicit mesh over a tetrahedral grid."""

from typing import Literal

from pydantic import Field

from schemas.config.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared import Floor, GeometryConfig, GridConfig, ImageSize
from schemas.schedule import Ramp, Weight, constant


class DmtetConfig(GeometryConfig):
    """Stage 3: an explicit mesh over a tetrahedral grid."""

    steps: int = Field(default=200, ge=0)
    tet_resolution: int = Field(default=96, ge=8, le=256)
    guidance_size: ImageSize = 128
    geometry_lr: float = Field(default=0.001, gt=0.0)
    """Low: the surface comes converted, and painted views that do not quite agree would roughen it."""
    gradient_floor: Floor = 0.05
    color_lr: float = Field(default=0.001, gt=0.0)
    mask_erosion: int = Field(default=2, ge=0, le=256)
    """Pixels by which the reference's mask shrinks before its colours are learned."""
    guide_colors: bool = False
    """Whether scores paint too, or only shape: then sides that the reference does not see keep the colours of the SDF and of the painted
    views, which guidance at high noise would bleach."""
    hold_colors_weight: Weight = constant(5.0)
    """Weight of the mean change of the surface's colours since the SDF's: a reference anchor alone teaches a hash grid's network
    colours that show up on unseen sides. [choice]"""
    color_fit_lr: float = Field(default=0.01, gt=0.0)
    """While the colour field is fitted to the SDF's colours."""
    drawn_light: Literal["studio", "unknown"] = "studio"
    """The light in references that the text prior draws. "studio", the embedded prior's: what the SDF's colours show of it is measured
    and taken out, for backs would else be darker (stages/guidance/studio_light.py). "unknown", for other text priors: nothing is taken
    out, as with a user's picture."""
    normal_guidance_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the steps in which the text prior sees the normal map, not the colours; for priors that know normal maps, as the
    embedded one does not. source: DreamCraft3D, 3 steps of 4."""
    normal_consistency_weight: Weight = constant(3.0)
    laplacian_weight: Weight = constant(0.0)
    crumb_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Components below this share of the largest are dropped."""
    grid: GridConfig = GridConfig(n_levels=10)
    """Of the colour field, which the texture stage goes on with."""
    color_fit_steps: int = Field(default=200, ge=1)
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.0), t_min=constant(0.02), t_max=constant(0.5))
    """Off: a young prior's scores swell a mesh that painted views already shape."""
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0), t_min=constant(0.4), t_max=constant(0.7))
    targets: ViewTargetsConfig = ViewTargetsConfig(
        # [choice: at 500 the few views of this stage outdo the SDF's colours, in which more of them are averaged: `alignment` was 0.013
        # lower on five objects, and a yellow car's back olive]
        rgb_weight=constant(150.0),
        mask_weight=constant(100.0),
        inside_only=True,
        paint_at=(0.0, 0.5),
        strength=Ramp(start=0.5, end=0.3),
    )
