"""Settings of the polish stage: the mesh under the normal prior."""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Frozen
from schemas.config.shared.geometry import (
    AnchorConfig,
    Betas,
    CameraConfig,
    Floor,
    ImageSize,
    PreviewConfig,
    Views,
    refuse_all_zero,
)
from schemas.config.shared.schedule import Weight, constant


class PolishConfig(Frozen):
    """A few steps under the normal prior, from any field of view."""

    steps: int = Field(default=60, ge=0)
    """Steps of the stage; 0: the mesh stays as it is."""
    size: ImageSize = 128
    """Side of the renders, pixels."""
    views: Views = 2
    """Novel views in one step."""
    cameras: CameraConfig = CameraConfig(fov_deg=(20.0, 60.0), widen_until=0.0)
    """Where the novel views are taken from."""
    estimator_steps: int = Field(default=1, ge=1, le=1000)
    """Sampling steps of the normal prior on each render."""
    lit: bool = False
    """Whether the normal prior sees the renders under a light; for a mesh of one colour, whose shape nothing else shows."""
    vertex_lr: float = Field(default=0.001, gt=0.0)
    """Adam's learning rate of the reparametrised vertices."""
    betas: Betas = (0.9, 0.99)
    """Adam's decay rates."""
    gradient_floor: Floor = 0.05
    """Adam's epsilon for the vertices, as a share of the largest root mean square gradient; 0: plain Adam."""
    smoothness: float = Field(default=30.0, ge=0.0)
    """Weight of the Laplacian in the vertices' reparametrisation (source: Large Steps in Inverse Rendering)."""
    keep_quantile: float = Field(default=0.85, gt=0.0, le=1.0)
    """Share of the pixels that count, those that agree best with the prior (source: Wonder3D)."""
    counted_coverage: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Coverage (0..1) above which a pixel's normals are compared with the prior's."""
    normal_weight: Weight = constant(100.0)
    """Weight of the mean of 1 - cosine between the renders' normals and the prior's."""
    curvature_weight: Weight = constant(0.0)
    """Weight of the error of the normals' differences between neighbouring pixels."""
    silhouette_weight: Weight = constant(300.0)
    """Weight of the mean square change of the novel views' coverage since the start."""
    displacement_weight: Weight = constant(100_000.0)
    """Weight of the mean square distance of the vertices from their start, square world units."""
    normal_consistency_weight: Weight = constant(1.0)
    """Weight of the mean of 1 - cosine between the normals of neighbouring faces."""
    normal_variation_weight: Weight = constant(0.0)
    """Weight of the mean difference between the normals of neighbouring faces, which takes bumps away and leaves edges."""
    laplacian_weight: Weight = constant(1.0)
    """Weight of the vertices' mean square distance from their neighbours' mean."""
    color_fit_steps: int = Field(default=100, ge=0)
    """Steps that teach the colour field its colours on the moved surface; 0: colours stay where they are in space."""
    color_fit_batch: int = Field(default=8192, ge=1)
    """Places in one step of that fit."""
    color_fit_lr: float = Field(default=0.003, gt=0.0)
    """Adam's learning rate of that fit."""
    anchors: AnchorConfig = AnchorConfig(rgb=constant(1000.0), mask=constant(100.0), normal=constant(10.0))
    """Weights of the losses on the reference view."""
    preview: PreviewConfig = PreviewConfig()
    """The turntable that the stage leaves, and its pictures on the way."""

    @model_validator(mode="after")
    def _guided(self) -> Self:
        anchors = {f"anchors.{name}": getattr(self.anchors, name) for name in type(self.anchors).model_fields}
        own = {"normal_weight": self.normal_weight, "curvature_weight": self.curvature_weight}
        if self.steps > 0:
            refuse_all_zero("polishing", {**own, **anchors})
        return self
