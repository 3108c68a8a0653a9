"""Settings of the NeRF stage: the rough shape as a density field."""

from pydantic import Field

from schemas.config.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared import OpeningGridConfig, Views, VolumeConfig
from schemas.schedule import Ramp, Weight, constant


class NerfConfig(VolumeConfig):
    """Stage 1: rough structure."""

    steps: int = Field(default=300, ge=0)
    guidance_views: Views = 4
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.02))
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0))
    targets: ViewTargetsConfig = ViewTargetsConfig(rgb_weight=constant(500.0), mask_weight=constant(50.0))
    grid: OpeningGridConfig = OpeningGridConfig()
    grid_lr: float = Field(default=0.01, gt=0.0)
    network_lr: float = Field(default=0.01, gt=0.0)
    occupancy_resolution: int = Field(default=64, ge=8, le=512)
    samples_per_ray: int = Field(default=64, ge=4, le=4096)
    density_scale: float = Field(default=15.0, gt=0.0)
    """Density per world unit of the field's unit output."""
    blob_scale: float = Field(default=8.0, ge=0.0)
    blob_std: float = Field(default=0.3, gt=0.0)
    blob_offset: float = Field(default=5.0, ge=0.0)
    """Subtracted from the field's raw output, so that space starts empty away from the blob."""
    opacity_entropy_weight: Weight = Ramp(start=0.1, end=10.0, begin=0.4, until=0.6)
    """Like the two below, it has grown when the default switch may first hand over: a ramp that went on would end at another weight for
    every object. [choice]"""
    sparsity_weight: Weight = Ramp(start=0.1, end=10.0, begin=0.4, until=0.6)
    distortion_weight: Weight = Ramp(start=0.0, end=20.0, begin=0.4, until=0.6)
    """Pulls what stops a ray into one place, so that the density has a surface to convert, not a sponge around one. source: mip-NeRF 360,
    eq. 15, with distances in world units, and the mean taken over all rays, those that meet nothing too. [choice of weight: at 80 thin
    parts go.]"""
    orientation_weight: Weight = constant(0.0)
    """Costs the normals of every sample; the recipe's 1 -> 10 is in the `sd` preset."""
