"""Settings of the texture stage: Domain Score Distillation of the colours."""

from typing import Self

from pydantic import Field, model_validator

from schemas.config.shared.geometry import (
    Betas,
    CameraConfig,
    ColorAnchorConfig,
    ImageSize,
    LevelsConfig,
    PreviewConfig,
    Views,
    refuse_all_zero,
)
from schemas.config.shared.guidance import DistillationConfig, ViewTargetsConfig
from schemas.config.shared.schedule import Fraction, Ramp, Weight, constant


class PaintAnchorConfig(ColorAnchorConfig):
    """What the texture stage holds on to besides the reference view."""

    drift: Weight = constant(60.0)
    """Weight of the blurred difference of novel views from the colours at the start."""
    drift_window: int = Field(default=16, ge=1, le=512)
    """Side of the squares over which that difference is averaged first, pixels."""


class TextureConfig(DistillationConfig):
    """Domain Score Distillation on the frozen mesh; the distillation's own settings are inherited."""

    steps: int = Field(default=160, ge=0)
    """Steps of the stage; 0: the colours stay as they are."""
    size: ImageSize = 128
    """Side of the renders, pixels."""
    views: Views = 4
    """Novel views in one step."""
    cameras: CameraConfig = CameraConfig(fov_deg=(20.0, 40.0), widen_until=0.0)
    """Where the novel views are taken from."""
    grid: LevelsConfig = LevelsConfig()
    """How the levels of dmtet's colour grid close and open again."""
    grid_lr: float = Field(default=0.002, gt=0.0)
    """Adam's learning rate of the hash grid's table."""
    network_lr: float = Field(default=0.0003, gt=0.0)
    """Adam's learning rate of the network behind the grid."""
    betas: Betas = (0.9, 0.99)
    """Adam's decay rates."""
    lr_factor: Fraction = Ramp(start=1.0, end=0.1)
    """Factor on both rates over the stage."""
    anchors: PaintAnchorConfig = PaintAnchorConfig()
    """Weights of the losses that hold the colours."""
    targets: ViewTargetsConfig = ViewTargetsConfig()
    """Views that the view prior paints whole, by which a mesh without colours gets its first ones; off unless weighted."""
    block_in_steps: int = Field(default=0, ge=0)
    """Steps in which the field learns the reference's and the first painted views' colours before the stage's own; needs `targets`."""
    block_in_batch: int = Field(default=8192, ge=1)
    """Places in one of these steps."""
    block_in_lr: float = Field(default=0.01, gt=0.0)
    """Adam's learning rate of these steps."""
    block_in_facing: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Cosine between a place's normal and the way to the camera from which its colour counts there."""
    block_in_front: int = Field(default=4, ge=0)
    """How many times the reference's pixels count beside those of a painted view."""
    hold_weight: Weight = constant(1000.0)
    """Weight of the mean change of colours on those parts of a user's own mesh that are not to be painted."""
    held_points: int = Field(default=4096, ge=1)
    """Places in one step at which these are held."""
    mask_erosion: int = Field(default=3, ge=0, le=256)
    """Pixels by which the reference's mask shrinks before its colours count."""
    guidance_scale: Weight = constant(7.5)
    t_min: Fraction = constant(0.2)
    t_max: Fraction = Ramp(start=0.5, end=0.2)
    front_deg: float = Field(default=30.0, gt=0.0, lt=180.0)
    preview: PreviewConfig = PreviewConfig()
    """The turntable that the stage leaves, and its pictures on the way."""

    @property
    def uses_view(self) -> bool:
        """Whether the view prior is opened, unless another one paints the views."""
        return self.targets.wanted

    @property
    def uses_view_alone(self) -> bool:
        """Whether the view prior is opened whoever paints the views: never, it has no term of its own here."""
        return False

    @property
    def uses_views(self) -> bool:
        """Whether a prior that paints sets of views is opened, where one is named."""
        return self.targets.wanted

    @model_validator(mode="after")
    def _guided(self) -> Self:
        if self.steps == 0:
            return self
        refuse_all_zero("the texture", {"weight": self.weight, "anchors.rgb": self.anchors.rgb})
        if self.objective == "dsd" and self.weight.largest > 0:
            lambdas = {"lambda_realistic": self.lambda_realistic, "lambda_stable": self.lambda_stable}
            refuse_all_zero("the dsd objective", lambdas)
        return self
