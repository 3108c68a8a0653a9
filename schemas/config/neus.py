"""Settings of the NeuS stage: the density becomes a signed distance field and is sharpened."""

from pydantic import Field

from schemas.config.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared import GridConfig, SwitchConfig, VolumeConfig
from schemas.schedule import Weight, constant


class NeusConfig(VolumeConfig):
    """Stage 2: the density becomes a signed distance field and is sharpened."""

    steps: int = Field(default=100, ge=0)
    switch: SwitchConfig = SwitchConfig(window=20)
    conversion_resolution: int = Field(default=128, ge=16, le=512)
    conversion_steps: int = Field(default=400, ge=1)
    grid: GridConfig = GridConfig()
    grid_lr: float = Field(default=0.01, gt=0.0)
    network_lr: float = Field(default=0.001, gt=0.0)
    sharpness_lr: float = Field(default=0.0001, gt=0.0)
    """Low: views that do not quite agree would rather blur the surface than move it."""
    refine_lr_factor: float = Field(default=0.3, gt=0.0, le=1.0)
    """Of `grid_lr` after the conversion, so that the first steps do not wash away what was converted."""
    conversion_smoothing: float = Field(default=0.3, ge=0.0)
    """Gaussian blur of densities and distances, in lattice steps."""
    conversion_closing: float = Field(default=0.0, ge=0.0, le=0.3)
    """Pits that a ball of this radius, in world units, cannot enter are filled where no outline shows it; 0: none. [choice: since the
    distortion term there are few, and at 0.03 seats and table undersides filled up, at a cost of 2 to 3 thousandths of Chamfer distance
    on a sofa and an armchair]"""
    conversion_blur: float = Field(default=0.015, ge=0.0, le=0.3)
    """Standard deviation in world units of a blur of the surface where no outline shows it. [choice]"""
    conversion_component_share: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Solid parts below this share of the largest are dropped."""
    conversion_agreement: float = Field(default=0.85, ge=0.0, le=1.0)
    """Share of the views all around that must show something at a place below the density level, for it to count as a faint part of
    the object; 0: nothing is added (dreampolish/fields/thin_parts.py). [choice]"""
    shell_parts: int = Field(default=3, ge=0)
    """Finer samples per even step of the shell that light reaches; 0: the even steps themselves. With 1, thin legs are dotted."""
    initial_inverse_std: float = Field(default=500.0, gt=1.0)
    """Sharpness of the surface at the start, per world unit. NeuS itself starts at exp(3) = 20, from a sphere; ours starts converted.
    At 250 outlines were 1.5 pixels of 128 soft, which hedges where the views disagree and no mesh can keep. [choice]"""
    occupancy_resolution: int = Field(default=64, ge=8, le=512)
    samples_per_ray: int = Field(default=112, ge=4, le=4096)
    hold_weight: Weight = constant(20.0)
    """Weight of the mean distance between the surface and the points where the conversion found it: without it the eikonal term
    alone moves thin parts; at 200 the targets moved nothing. [choice]"""
    eikonal_weight: Weight = constant(10.0)
    orientation_weight: Weight = constant(0.0)
    sparsity_weight: Weight = constant(0.0)
    opacity_entropy_weight: Weight = constant(0.1)
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.02), t_min=constant(0.2), t_max=constant(0.5))
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0), t_min=constant(0.4), t_max=constant(0.7))
    targets: ViewTargetsConfig = ViewTargetsConfig(
        rgb_weight=constant(500.0), mask_weight=constant(50.0), paint_at=(0.0,), strength=constant(0.85)
    )
