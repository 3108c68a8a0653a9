"""Settings of the NeuS stage: the density becomes a signed distance field and is sharpened."""

from pydantic import Field

from schemas.base import Frozen
from schemas.config.shared.geometry import GridConfig, SwitchConfig, VolumeConfig
from schemas.config.shared.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared.schedule import Weight, constant


class ThinPartsConfig(Frozen):
    """What counts as a faint part: what nearly all views show and the level set lacks (dreampolish/fields/thin_parts.py)."""

    picture_share: float = Field(default=0.75, gt=0.0, le=4.0)
    """Pixels of a side of the views, per lattice point of a side."""
    hole: int = Field(default=3, ge=1, le=64)
    """Widest holes in a view's opacity that are closed, pixels."""
    least_opacity: float = Field(default=0.25, ge=0.0, le=1.0)
    """Opacity (0..1) from which a view shows something."""
    halo: float = Field(default=2.0, ge=0.0)
    """Least width of the soft edge around the level set's outline, pixels."""
    border_quantile: float = Field(default=0.25, ge=0.0, le=1.0)
    """The soft edge reaches a pixel beyond this quantile (0..1) of the border's distances."""
    missed_share: float = Field(default=0.25, ge=0.0, le=1.0)
    """Least share of the views that show a faint part beside the level set."""
    density_blur: float = Field(default=1.5, ge=0.0)
    """Standard deviation of the blur of densities that bridges a sponge, lattice steps."""
    least_density: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of the level, after that blur, below which nothing is raised."""
    reach: float = Field(default=6.0, ge=0.0)
    """Radius of the ball whose inaccessible gaps close between a faint part and the body, lattice steps."""


class OutlinedSmoothingConfig(Frozen):
    """How the smoothing leaves outlines alone (dreampolish/fields/smoothing.py)."""

    least_part: float = Field(default=0.035, ge=0.0, le=1.0)
    """Side of the cube whose volume a part must have to count as one, also a faint part, world units."""
    clip: float = Field(default=3.0, gt=0.0)
    """Standard deviations at which distances are cut before a blur."""
    kept_margin: int = Field(default=2, ge=1, le=64)
    """Lattice steps around a lost part that are kept with it."""
    band: float = Field(default=3.0, gt=0.0)
    """Lattice steps from a surface within which points are examined."""


class NeusConfig(VolumeConfig):
    """The density becomes a signed distance field and is sharpened."""

    steps: int = Field(default=100, ge=0)
    """Steps at most after the conversion; 0: the stage only converts."""
    switch: SwitchConfig = SwitchConfig(window=20)
    conversion_resolution: int = Field(default=128, ge=16, le=512)
    """Lattice points of a side on which the density is converted."""
    conversion_levels: int = Field(default=24, ge=2, le=1000)
    """Candidates for the density level that becomes the surface, log-spaced."""
    conversion_steps: int = Field(default=400, ge=1)
    """Steps that fit the SDF's network to the converted distances."""
    conversion_batch: int = Field(default=8192, ge=2)
    """Points in one step of that fit: half near the surface, half anywhere."""
    grid: GridConfig = GridConfig()
    """Hash grid of the signed distance field."""
    grid_lr: float = Field(default=0.01, gt=0.0)
    """Adam's learning rate of the conversion's fit; of the grid's table later, times `refine_lr_factor`."""
    network_lr: float = Field(default=0.001, gt=0.0)
    """Adam's learning rate of the network after the conversion."""
    sharpness_lr: float = Field(default=0.0001, gt=0.0)
    """Adam's learning rate of the surface's sharpness."""
    refine_lr_factor: float = Field(default=0.3, gt=0.0, le=1.0)
    """Factor on `grid_lr` after the conversion."""
    conversion_smoothing: float = Field(default=0.3, ge=0.0)
    """Standard deviation of the Gaussian blur of densities and of distances, lattice steps."""
    conversion_closing: float = Field(default=0.0, ge=0.0, le=0.3)
    """Pits that a ball of this radius (world units) cannot enter are filled where no outline shows it; 0: none."""
    conversion_blur: float = Field(default=0.015, ge=0.0, le=0.3)
    """Standard deviation of the surface's blur where no outline shows it, world units; 0: none."""
    smoothing: OutlinedSmoothingConfig = OutlinedSmoothingConfig()
    """How closing and blur leave outlines alone."""
    sheet_thickness: float = Field(default=2.0, ge=0.0, le=64.0)
    """Thickness of surfaces with air on both sides, in a mesh that a run starts from, lattice steps. [choice]"""
    conversion_component_share: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Solid parts below this share of the largest one's volume are dropped."""
    conversion_agreement: float = Field(default=0.85, ge=0.0, le=1.0)
    """Share of all views that must show a place below the density level for it to become solid; 0: none does."""
    thin_parts: ThinPartsConfig = ThinPartsConfig()
    """What counts as a faint part, which `conversion_agreement` may make solid."""
    shell_parts: int = Field(default=3, ge=0)
    """Finer samples per even step of the shell that light reaches; 0: the even steps themselves."""
    initial_inverse_std: float = Field(default=500.0, gt=1.0)
    """Sharpness of the surface at the start, per world unit."""
    occupancy_resolution: int = Field(default=64, ge=8, le=512)
    """Cells of a side of the occupancy grid."""
    occupancy_interval: int = Field(default=16, ge=1)
    """Steps between two updates of the occupancy grid."""
    samples_per_ray: int = Field(default=112, ge=4, le=4096)
    """Even steps along the scene box's diagonal; sets the step's length."""
    hold_weight: Weight = constant(20.0)
    """Weight of the surface's mean distance from the points where the conversion found it, world units."""
    held_points: int = Field(default=4096, ge=1)
    """Points in one step at which the surface is held to the conversion's."""
    eikonal_weight: Weight = constant(10.0)
    """Weight of the mean of (|gradient| - 1)^2."""
    orientation_weight: Weight = constant(0.0)
    """Weight of visible normals that face away (Ref-NeRF, Eq. 11)."""
    sparsity_weight: Weight = constant(0.0)
    """Weight of the mean opacity: less matter."""
    opacity_entropy_weight: Weight = constant(0.1)
    """Weight of the opacities' mean binary entropy: pixels become empty or solid."""
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.0), t_min=constant(0.2), t_max=constant(0.5))
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0), t_min=constant(0.4), t_max=constant(0.7))
    targets: ViewTargetsConfig = ViewTargetsConfig(
        rgb_weight=constant(500.0), mask_weight=constant(50.0), paint_at=(0.0,), strength=constant(0.85)
    )
