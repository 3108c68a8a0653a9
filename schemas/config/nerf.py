"""Settings of the NeRF stage: the rough shape as a density field."""

from pydantic import Field

from schemas.config.shared.geometry import OpeningGridConfig, Views, VolumeConfig
from schemas.config.shared.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared.schedule import Ramp, Weight, constant


class NerfConfig(VolumeConfig):
    """Rough structure."""

    steps: int = Field(default=300, ge=0)
    """Steps at most; 0: the field keeps its initial ball."""
    guidance_views: Views = 4
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.0))
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0))
    targets: ViewTargetsConfig = ViewTargetsConfig(rgb_weight=constant(500.0), mask_weight=constant(50.0))
    grid: OpeningGridConfig = OpeningGridConfig()
    """Hash grid of the density field; its levels open one by one."""
    grid_lr: float = Field(default=0.01, gt=0.0)
    """Adam's learning rate of the hash grid's table."""
    network_lr: float = Field(default=0.01, gt=0.0)
    """Adam's learning rate of the network behind the grid."""
    occupancy_resolution: int = Field(default=64, ge=8, le=512)
    """Cells of a side of the occupancy grid."""
    occupancy_interval: int = Field(default=8, ge=1)
    """Steps between two updates of the occupancy grid."""
    samples_per_ray: int = Field(default=64, ge=4, le=4096)
    """Even steps along the scene box's diagonal; sets the step's length."""
    density_scale: float = Field(default=15.0, gt=0.0)
    """Density per world unit of the field's unit output."""
    blob_scale: float = Field(default=8.0, ge=0.0)
    """Height of the initial ball in the field's raw output; 0: no ball."""
    blob_std: float = Field(default=0.3, gt=0.0)
    """Standard deviation of the initial ball, world units."""
    blob_offset: float = Field(default=5.0, ge=0.0)
    """Subtracted from the field's raw output, so that space outside the ball starts empty."""
    opacity_entropy_weight: Weight = Ramp(start=0.1, end=10.0, begin=0.4, until=0.6)
    """Weight of the opacities' mean binary entropy: pixels become empty or solid."""
    sparsity_weight: Weight = Ramp(start=0.1, end=10.0, begin=0.4, until=0.6)
    """Weight of the mean opacity: less matter."""
    distortion_weight: Weight = Ramp(start=0.0, end=20.0, begin=0.4, until=0.6)
    """Weight of mip-NeRF 360's distortion (Eq. 15, world units): what stops a ray gathers in one place."""
    normal_smooth_weight: Weight = constant(0.0)
    """Weight of the mean square difference of neighbouring pixels of the normal picture; needs every sample's normal."""
    normal_jitter_weight: Weight = constant(0.0)
    """Weight of the mean absolute difference of a sample's normal from that of a place near it; needs every sample's normal."""
    jittered_points: int = Field(default=16384, ge=1)
    """Samples of a step whose normals are compared with those of places near them."""
    orientation_weight: Weight = constant(0.0)
    """Weight of visible normals that face away (Ref-NeRF, Eq. 11); needs every sample's normal."""
