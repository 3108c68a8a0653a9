"""Settings of the polish stage: the mesh under the normal prior."""

from typing import Self

from pydantic import Field, model_validator

from schemas.base import Frozen
from schemas.config.shared import AnchorConfig, CameraConfig, Floor, ImageSize, PreviewConfig, Views, refuse_all_zero
from schemas.schedule import Weight, constant


class PolishConfig(Frozen):
    """Stage 4: a few steps under the normal prior, from any field of view."""

    steps: int = Field(default=60, ge=0)
    size: ImageSize = 128
    views: Views = 2
    cameras: CameraConfig = CameraConfig(fov_deg=(20.0, 60.0), widen_until=0.0)
    estimator_steps: int = Field(default=1, ge=1, le=1000)
    vertex_lr: float = Field(default=0.001, gt=0.0)
    gradient_floor: Floor = 0.05
    smoothness: float = Field(default=30.0, ge=0.0)
    """Weight of the Laplacian in the vertices' reparametrisation. source: Large Steps in Inverse Rendering."""
    keep_quantile: float = Field(default=0.85, gt=0.0, le=1.0)
    """Share of the pixels that count, the best agreeing ones. source: Wonder3D."""
    normal_weight: Weight = constant(100.0)
    curvature_weight: Weight = constant(0.0)
    silhouette_weight: Weight = constant(300.0)
    """Weight of the mean square change of the novel views' coverage since the start: normals say nothing of where an outline lies, and
    their loss alone wears thin parts down. [choice]"""
    displacement_weight: Weight = constant(100_000.0)
    """Weight of the mean square way of the vertices since the start. Turning a wide patch moves it farther than turning a narrow one,
    so that shapes stay where pictures put them and their surface may change. [choice]"""
    normal_consistency_weight: Weight = constant(1.0)
    laplacian_weight: Weight = constant(1.0)
    color_fit_steps: int = Field(default=100, ge=0)
    """Steps in which the colours are learned anew on the moved surface, each where its place went. Renders on the way carry them too;
    0: colours stay in space, also on the way."""
    color_fit_lr: float = Field(default=0.003, gt=0.0)
    anchors: AnchorConfig = AnchorConfig(rgb=constant(1000.0), mask=constant(100.0), normal=constant(10.0))
    preview: PreviewConfig = PreviewConfig()

    @model_validator(mode="after")
    def _guided(self) -> Self:
        anchors = {f"anchors.{name}": getattr(self.anchors, name) for name in type(self.anchors).model_fields}
        own = {"normal_weight": self.normal_weight, "curvature_weight": self.curvature_weight}
        if self.steps > 0:
            refuse_all_zero("polishing", {**own, **anchors})
        return self
