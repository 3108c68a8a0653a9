"""Settings of the texture stage: Domain Score Distillation of the colours."""

from typing import Self

from pydantic import Field, model_validator

from schemas.config.guidance import DistillationConfig
from schemas.config.shared import (
    CameraConfig,
    ColorAnchorConfig,
    ImageSize,
    LevelsConfig,
    PreviewConfig,
    Views,
    refuse_all_zero,
)
from schemas.schedule import Fraction, Ramp, Weight, constant


class PaintAnchorConfig(ColorAnchorConfig):
    """What the texture stage holds on to besides the reference view."""

    drift: Weight = constant(60.0)
    """Weight of the difference of novel views, blurred, from the mesh's colours at the start: the distillation may add detail, but
    unseen sides keep the colour that the geometry stages gave them. [choice]"""
    drift_window: int = Field(default=16, ge=1, le=512)
    """Pixels of a side of the squares over which that difference is averaged first."""


class TextureConfig(DistillationConfig):
    """Stage 5: Domain Score Distillation on the frozen mesh. The distillation's own settings are inherited, so that
    `--set texture.lambda_stable=0.5` is all it takes."""

    steps: int = Field(default=160, ge=0)
    size: ImageSize = 128
    views: Views = 4
    cameras: CameraConfig = CameraConfig(fov_deg=(20.0, 40.0), widen_until=0.0)
    grid: LevelsConfig = LevelsConfig()
    """The grid itself is dmtet's; here its levels close and open again."""
    grid_lr: float = Field(default=0.002, gt=0.0)
    """Low: Adam does not see how small a lone distillation term is, and a young prior's drift on the unseen sides follows the rate."""
    network_lr: float = Field(default=0.0003, gt=0.0)
    lr_factor: Fraction = Ramp(start=1.0, end=0.1)
    """Of both rates. Falling: each step draws other views and other noise, and what the last of them left would stay as grain. [choice]"""
    anchors: PaintAnchorConfig = PaintAnchorConfig()
    mask_erosion: int = Field(default=3, ge=0, le=256)
    """Pixels by which the reference's mask shrinks before its colours count."""
    guidance_scale: Weight = constant(7.5)
    t_min: Fraction = constant(0.2)
    t_max: Fraction = Ramp(start=0.5, end=0.2)
    front_deg: float = Field(default=30.0, gt=0.0, lt=180.0)
    preview: PreviewConfig = PreviewConfig()

    @model_validator(mode="after")
    def _guided(self) -> Self:
        if self.steps == 0:
            return self
        refuse_all_zero("the texture", {"weight": self.weight, "anchors.rgb": self.anchors.rgb})
        if self.objective == "dsd" and self.weight.largest > 0:
            lambdas = {"lambda_realistic": self.lambda_realistic, "lambda_stable": self.lambda_stable}
            refuse_all_zero("the dsd objective", lambdas)
        return self
