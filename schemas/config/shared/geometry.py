"""Settings that several stages share: cameras, grids, anchors on the reference view, when to stop, previews, geometry."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.base import Frozen
from schemas.config.shared.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared.schedule import Ramp, Weight, constant

Range = tuple[float, float]
ImageSize = Annotated[int, Field(ge=16, le=4096)]
"""Pixels of a side."""
Views = Annotated[int, Field(ge=1, le=64)]
"""Pictures rendered in one step."""
Betas = tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]]
"""Adam's decay rates."""
Floor = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share of the largest root mean square gradient, used as Adam's epsilon (dreampolish/optim/floored_adam.py)."""


def _ordered(values: Range) -> Range:
    if values[0] > values[1]:
        raise ValueError(f"the lower end {values[0]:g} lies above the upper end {values[1]:g}")
    return values


def _azimuths(values: Range) -> Range:
    if min(values) < -180 or max(values) > 180:
        raise ValueError("azimuths lie between -180 and 180 degrees")
    return _ordered(values)


def _elevations(values: Range) -> Range:
    if min(values) <= -90 or max(values) >= 90:
        raise ValueError("elevations lie between -90 and 90 degrees, the poles excluded")
    return _ordered(values)


def _fields_of_view(values: Range) -> Range:
    if min(values) <= 0 or max(values) >= 180:
        raise ValueError("fields of view lie between 0 and 180 degrees, both excluded")
    return _ordered(values)


class CameraConfig(Frozen):
    """Where guidance looks from."""

    azimuth_deg: Annotated[Range, AfterValidator(_azimuths)] = (-180.0, 180.0)
    """Range of azimuths, degrees; 0 is the front."""
    elevation_deg: Annotated[Range, AfterValidator(_elevations)] = (-10.0, 45.0)
    """Range of elevations, degrees; 0 is level."""
    fov_deg: Annotated[Range, AfterValidator(_fields_of_view)] = (20.0, 20.0)
    """Range of vertical fields of view, degrees."""
    widen_until: float = Field(default=0.05, ge=0.0, le=1.0)
    """Progress (0..1) at which azimuths, which start at the front, reach their range."""


class GridConfig(Frozen):
    """Multiresolution hash grid (source: Instant-NGP) and the hidden layer behind it."""

    n_levels: int = Field(default=8, ge=1, le=24)
    """Levels, from coarse to fine."""
    n_features: int = Field(default=2, ge=1, le=8)
    """Features of a level."""
    log2_table_size: int = Field(default=15, ge=4, le=24)
    """Logarithm (base 2) of the entries that a hashed level has at most."""
    base_resolution: int = Field(default=8, ge=2, le=512)
    """Cells of a side on the coarsest level."""
    growth: float = Field(default=1.447, gt=1.0, le=2.5)
    """Factor between the resolutions of neighbouring levels."""
    hidden_size: int = Field(default=64, ge=4, le=1024)
    """Width of the hidden layer."""


class LevelsConfig(Frozen):
    """How the levels of a hash grid open while a stage runs."""

    start_level: int = Field(default=5, ge=1)
    """Levels active at the start, or all if there are fewer; the rest open one by one until `full_at`."""
    full_at: float = Field(default=0.6, ge=0.0, le=1.0)
    """Progress (0..1) at which every level is active."""


class OpeningGridConfig(GridConfig, LevelsConfig):
    """A hash grid whose levels open one by one."""


class ColorAnchorConfig(Frozen):
    """Weight of the colour loss on the reference view (source: DreamCraft3D)."""

    rgb: Weight = constant(1000.0)
    """Weight of the difference of colours from the reference."""


class AnchorConfig(ColorAnchorConfig):
    """Weights of the losses on the reference view (source: DreamCraft3D)."""

    mask: Weight = constant(100.0)
    """Weight of the mean square difference of coverage from the reference's mask."""
    normal: Weight = constant(0.0)
    """Weight of the mean of 1 - cosine to the reference's estimated normals."""


class VolumeAnchorConfig(AnchorConfig):
    """What a rendered volume is held to besides (source: DreamCraft3D)."""

    depth: Weight = constant(0.0)
    """Weight of 1 - Pearson's correlation with the depth that the depth prior sees in the reference."""


class SwitchConfig(Frozen):
    """When a stage hands over: on a plateau of reference-view PSNR and opacity entropy, or at its last step."""

    criterion: Literal["plateau", "early", "late"] = "plateau"
    """early: at `min_fraction` of the steps; late: at the last step; plateau: between the two."""
    window: int = Field(default=50, ge=2)
    """Observations of a window; the means of the last two windows are compared."""
    psnr_tolerance_db: float = Field(default=0.1, ge=0.0)
    """Largest change of PSNR on a plateau, dB."""
    entropy_tolerance: float = Field(default=0.01, ge=0.0)
    """Largest change of opacity entropy on a plateau, nats."""
    min_fraction: float = Field(default=0.6, ge=0.0, le=1.0)
    """Share of the steps before which no stage hands over."""


class PreviewConfig(Frozen):
    """The turntable that a stage leaves for the contact sheet, and the pictures of the reference view on the way."""

    n_views: int = Field(default=8, ge=1, le=64)
    """Views of the turntable."""
    size: int = Field(default=128, ge=16, le=2048)
    """Side of the turntable's pictures, pixels."""
    elevation_deg: float = Field(default=15.0, gt=-90.0, lt=90.0)
    """Elevation of the turntable, degrees."""
    interval: int = Field(default=50, ge=1)
    """Steps between two pictures of the reference view, with PSNR and SSIM; at most 5 % of a stage."""


def refuse_all_zero(stage: str, weights: dict[str, Ramp]) -> None:
    """Raise where every weight is 0: regularisers alone give a stage no aim."""
    if all(weight.largest == 0 for weight in weights.values()):
        raise ValueError(f"{', '.join(weights)} are all 0: nothing would guide {stage}; give one of them a weight")


class GeometryConfig(Frozen):
    """What nerf, neus and dmtet have in common."""

    steps: int = Field(default=400, ge=0)
    """Steps of the stage; 0: the stage only converts its input."""
    reference_size: ImageSize = 128
    """Side of the reference view's renders, pixels."""
    guidance_size: ImageSize = 64
    """Side of the novel views' renders, pixels."""
    guidance_views: Views = 2
    """Novel views in one step."""
    guidance_interval: int = Field(default=1, ge=1)
    """Steps between two steps with guidance."""
    cameras: CameraConfig = CameraConfig()
    """Where the novel views are taken from while no painted views are held to."""
    text: GeometryTextConfig = GeometryTextConfig()
    """Score distillation from the text prior."""
    view: ViewGuidanceConfig = ViewGuidanceConfig()
    """Score distillation from the view prior."""
    targets: ViewTargetsConfig = ViewTargetsConfig()
    """Views that the view prior paints whole."""
    anchors: AnchorConfig = AnchorConfig()
    """Weights of the losses on the reference view."""
    preview: PreviewConfig = PreviewConfig()
    """The turntable that the stage leaves, and its pictures on the way."""
    betas: Betas = (0.9, 0.99)
    """Adam's decay rates."""

    @property
    def uses_text(self) -> bool:
        """Whether the text prior is opened."""
        return self.text.weight.largest > 0

    @property
    def uses_view(self) -> bool:
        """Whether the view prior is opened, unless another one paints the views."""
        return self.uses_view_alone or self.targets.wanted

    @property
    def uses_view_alone(self) -> bool:
        """Whether the view prior is opened whoever paints the views."""
        return self.view.weight.largest > 0

    @property
    def uses_views(self) -> bool:
        """Whether a prior that paints sets of views is opened, where one is named."""
        return self.targets.wanted

    @model_validator(mode="after")
    def _guided(self) -> Self:
        anchors = {f"anchors.{name}": getattr(self.anchors, name) for name in type(self.anchors).model_fields}
        if self.steps > 0:
            targets = {f"targets.{name}": getattr(self.targets, name) for name in ("rgb_weight", "mask_weight")}
            guides = {"text.weight": self.text.weight, "view.weight": self.view.weight} | targets
            refuse_all_zero("the stage", guides | anchors)
        return self


class FinerConfig(Frozen):
    """A second resolution of a stage that renders a volume (source: DreamCraft3D's resolution milestones)."""

    begin: float = Field(default=1.0, ge=0.0, le=1.0)
    """Progress (0..1) from which it holds; 1: never."""
    size: ImageSize = 384
    """Side of the reference view's and the novel views' renders from then on, pixels."""
    views: Views = 1
    """Novel views in one step from then on."""


class VolumeConfig(GeometryConfig):
    """What nerf and neus have in common: they hand over on a plateau, and may render the reference view more seldom."""

    reference_size: ImageSize = 64
    anchor_interval: int = Field(default=1, ge=1)
    """Steps between two renders of the reference view."""
    anchors: VolumeAnchorConfig = VolumeAnchorConfig()
    alternate: bool = False
    """Whether steps that render the reference view leave the novel views out (source: DreamCraft3D)."""
    finer: FinerConfig = FinerConfig()
    """Larger pictures from some progress on."""
    switch: SwitchConfig = SwitchConfig()
    """When the stage hands over."""
