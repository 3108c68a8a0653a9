"""Settings that several stages share: cameras, grids, anchors on the reference view, when to stop, previews, geometry."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.base import Frozen
from schemas.config.guidance import GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.schedule import Ramp, Weight, constant

Range = tuple[float, float]
ImageSize = Annotated[int, Field(ge=16, le=4096)]
"""Pixels of a side."""
Views = Annotated[int, Field(ge=1, le=64)]
"""Pictures rendered in one step."""
Betas = tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]]
"""Adam's decay rates."""
Floor = Annotated[float, Field(ge=0.0, le=1.0)]
"""Adam's epsilon for the shape, as a share of the largest root mean square gradient (dreampolish/optim/floored_adam.py); 0: plain Adam."""


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
    """Where guidance looks from, degrees. `widen_until`: progress at which azimuths, from the front on, reach their range."""

    azimuth_deg: Annotated[Range, AfterValidator(_azimuths)] = (-180.0, 180.0)
    elevation_deg: Annotated[Range, AfterValidator(_elevations)] = (-10.0, 45.0)
    fov_deg: Annotated[Range, AfterValidator(_fields_of_view)] = (20.0, 20.0)
    widen_until: float = Field(default=0.05, ge=0.0, le=1.0)


class GridConfig(Frozen):
    """Multiresolution hash grid. source: DreamCraft3D (16 levels, 2^19 entries, growth 1.447), cut down for two cores."""

    n_levels: int = Field(default=8, ge=1, le=24)
    n_features: int = Field(default=2, ge=1, le=8)
    log2_table_size: int = Field(default=15, ge=4, le=24)
    base_resolution: int = Field(default=8, ge=2, le=512)
    growth: float = Field(default=1.447, gt=1.0, le=2.5)
    hidden_size: int = Field(default=64, ge=4, le=1024)


class LevelsConfig(Frozen):
    """How the levels of a hash grid open while a stage runs."""

    start_level: int = Field(default=5, ge=1)
    """Levels active at the start, all of them if there are fewer; the rest open one by one until `full_at`."""
    full_at: float = Field(default=0.6, ge=0.0, le=1.0)
    """Progress at which every level is active."""


class OpeningGridConfig(GridConfig, LevelsConfig):
    """A hash grid whose levels open one by one."""


class ColorAnchorConfig(Frozen):
    """Weight of the colour loss on the reference view. source: DreamCraft3D."""

    rgb: Weight = constant(1000.0)


class AnchorConfig(ColorAnchorConfig):
    """Weights of the losses on the reference view. source: DreamCraft3D (rgb 1000, mask 100)."""

    mask: Weight = constant(100.0)
    normal: Weight = constant(0.0)


class SwitchConfig(Frozen):
    """When a stage hands over: on a measured plateau of reference PSNR and opacity entropy, or at its step cap."""

    criterion: Literal["plateau", "early", "late"] = "plateau"
    """early: at `min_fraction` of the steps; late: at the cap; plateau: between the two."""
    window: int = Field(default=50, ge=2)
    psnr_tolerance_db: float = Field(default=0.1, ge=0.0)
    entropy_tolerance: float = Field(default=0.01, ge=0.0)
    min_fraction: float = Field(default=0.6, ge=0.0, le=1.0)


class PreviewConfig(Frozen):
    """The turntable that every stage leaves for the contact sheet, and the pictures of the reference view on the way."""

    n_views: int = Field(default=8, ge=1, le=64)
    size: int = Field(default=128, ge=16, le=2048)
    elevation_deg: float = Field(default=15.0, gt=-90.0, lt=90.0)
    interval: int = Field(default=50, ge=1)
    """Steps between two pictures of the reference view, with their PSNR and SSIM, in the tracker; every 5 % of a stage at least."""


def refuse_all_zero(stage: str, weights: dict[str, Ramp]) -> None:
    """A stage must have something that tells it where to go; regularisers alone lead anywhere."""
    if all(weight.largest == 0 for weight in weights.values()):
        raise ValueError(f"{', '.join(weights)} are all 0: nothing would guide {stage}; give one of them a weight")


class GeometryConfig(Frozen):
    """What nerf, neus and dmtet have in common."""

    steps: int = Field(default=400, ge=0)
    """0: the stage only converts what it was given; the first one then gives its initial ball."""
    reference_size: ImageSize = 128
    guidance_size: ImageSize = 64
    guidance_views: Views = 2
    guidance_interval: int = Field(default=1, ge=1)
    """Guidance is computed every so many steps."""
    cameras: CameraConfig = CameraConfig()
    text: GeometryTextConfig = GeometryTextConfig()
    view: ViewGuidanceConfig = ViewGuidanceConfig()
    targets: ViewTargetsConfig = ViewTargetsConfig()
    anchors: AnchorConfig = AnchorConfig()
    preview: PreviewConfig = PreviewConfig()
    betas: Betas = (0.9, 0.99)

    @model_validator(mode="after")
    def _guided(self) -> Self:
        anchors = {f"anchors.{name}": getattr(self.anchors, name) for name in type(self.anchors).model_fields}
        if self.steps > 0:
            targets = {f"targets.{name}": getattr(self.targets, name) for name in ("rgb_weight", "mask_weight")}
            guides = {"text.weight": self.text.weight, "view.weight": self.view.weight} | targets
            refuse_all_zero("the stage", guides | anchors)
        return self


class VolumeConfig(GeometryConfig):
    """What nerf and neus have in common: they hand over on a plateau, and may render the reference view more seldom."""

    reference_size: ImageSize = 64
    anchor_interval: int = Field(default=1, ge=1)
    """The reference view is rendered every so many steps."""
    switch: SwitchConfig = SwitchConfig()
