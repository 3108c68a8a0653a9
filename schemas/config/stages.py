"""Settings of each stage. The defaults are the `home` preset: two cores, small priors; DreamCraft3D's weights, scaled budgets."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Frozen
from schemas.config.guidance import DistillationConfig, GeometryTextConfig, ViewGuidanceConfig, ViewTargetsConfig
from schemas.config.shared import (
    AnchorConfig,
    Betas,
    CameraConfig,
    ColorAnchorConfig,
    GridConfig,
    ImageSize,
    LevelsConfig,
    OpeningGridConfig,
    PreviewConfig,
    SwitchConfig,
    Views,
)
from schemas.schedule import Fraction, Ramp, Weight, constant

Floor = Annotated[float, Field(ge=0.0, le=1.0)]
"""Adam's epsilon for the shape, as a share of the largest root mean square gradient (dreampolish/optim/floored_adam.py); 0: plain Adam."""


def _refuse_all_zero(stage: str, weights: dict[str, Ramp]) -> None:
    """A stage must have something that tells it where to go; regularisers alone lead anywhere."""
    if all(weight.largest == 0 for weight in weights.values()):
        raise ValueError(f"{', '.join(weights)} are all 0: nothing would guide {stage}; give one of them a weight")


class ReferenceConfig(Frozen):
    """Stage 0: candidates from the text prior, or a user's picture."""

    size: int = Field(default=128, ge=16, le=1024)
    n_candidates: int = Field(default=20, ge=1, le=256)
    sampling_steps: int = Field(default=40, ge=1, le=1000)
    renewed: float = Field(default=1.0, ge=0.0, le=1.0)
    """DDIM's eta: share of the noise drawn anew at every sampling step, which mends a young prior's slips; 0: deterministic."""
    guidance_scale: float = Field(default=2.5, ge=0.0)
    symmetry_weight: float = Field(default=1.0, ge=0.0, le=100.0)
    """Of a candidate's mirror symmetry beside its alignment, when the best is chosen: most things are symmetric seen from the front,
    and a young prior's slips are not. [choice]"""
    negative_prompt: str = Field(default="", max_length=300)
    view_words: str = Field(default="straight front view", max_length=100)
    """What is added to the prompt: how the text prior was taught to call the view that the reference is taken to be. Models of others
    know "front view"."""
    elevation_deg: float = Field(default=10.0, gt=-90.0, lt=90.0)
    normal_steps: int = Field(default=1, ge=1, le=1000)
    background_tolerance: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest colour distance to the border colour that still counts as plain background. An object that differs from it by less than
    twice as much keeps a sharp outline."""
    framing: Literal["fit", "as_is"] = "fit"
    """A user's picture: "fit" moves and scales the object to where the priors expect it; "as_is" only resizes a square picture that
    is framed canonically already (FOV 20 at distance 3.8)."""
    unknown_words: Literal["refuse", "allow"] = "refuse"
    """What to do with a prompt of which the text prior has never seen a word; single unknown words are only said."""


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
            _refuse_all_zero("the stage", guides | anchors)
        return self


class VolumeConfig(GeometryConfig):
    """What nerf and neus have in common: they hand over on a plateau, and may render the reference view more seldom."""

    reference_size: ImageSize = 64
    anchor_interval: int = Field(default=1, ge=1)
    """The reference view is rendered every so many steps."""
    switch: SwitchConfig = SwitchConfig()


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


class DmtetConfig(GeometryConfig):
    """Stage 3: an explicit mesh over a tetrahedral grid."""

    steps: int = Field(default=200, ge=0)
    tet_resolution: int = Field(default=96, ge=8, le=256)
    guidance_size: ImageSize = 128
    geometry_lr: float = Field(default=0.001, gt=0.0)
    """Low: the surface comes converted, and painted views that do not quite agree would roughen it."""
    gradient_floor: Floor = 0.05
    color_lr: float = Field(default=0.001, gt=0.0)
    mask_erosion: int = Field(default=2, ge=0, le=256)
    """Pixels by which the reference's mask shrinks before its colours are learned."""
    guide_colors: bool = False
    """Whether scores paint too, or only shape: then sides that the reference does not see keep the colours of the SDF and of the painted
    views, which guidance at high noise would bleach."""
    hold_colors_weight: Weight = constant(5.0)
    """Weight of the mean change of the surface's colours since the SDF's: a reference anchor alone teaches a hash grid's network
    colours that show up on unseen sides. [choice]"""
    color_fit_lr: float = Field(default=0.01, gt=0.0)
    """While the colour field is fitted to the SDF's colours."""
    drawn_light: Literal["studio", "unknown"] = "studio"
    """The light in references that the text prior draws. "studio", the embedded prior's: what the SDF's colours show of it is measured
    and taken out, for backs would else be darker (stages/guidance/studio_light.py). "unknown", for other text priors: nothing is taken
    out, as with a user's picture."""
    normal_guidance_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the steps in which the text prior sees the normal map, not the colours; for priors that know normal maps, as the
    embedded one does not. source: DreamCraft3D, 3 steps of 4."""
    normal_consistency_weight: Weight = constant(3.0)
    laplacian_weight: Weight = constant(0.0)
    crumb_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Components below this share of the largest are dropped."""
    grid: GridConfig = GridConfig(n_levels=10)
    """Of the colour field, which the texture stage goes on with."""
    color_fit_steps: int = Field(default=200, ge=1)
    text: GeometryTextConfig = GeometryTextConfig(weight=constant(0.0), t_min=constant(0.02), t_max=constant(0.5))
    """Off: a young prior's scores swell a mesh that painted views already shape."""
    view: ViewGuidanceConfig = ViewGuidanceConfig(weight=constant(0.0), t_min=constant(0.4), t_max=constant(0.7))
    targets: ViewTargetsConfig = ViewTargetsConfig(
        # [choice: at 500 the few views of this stage outdo the SDF's colours, in which more of them are averaged: `alignment` was 0.013
        # lower on five objects, and a yellow car's back olive]
        rgb_weight=constant(150.0),
        mask_weight=constant(100.0),
        inside_only=True,
        paint_at=(0.0, 0.5),
        strength=Ramp(start=0.5, end=0.3),
    )


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
            _refuse_all_zero("polishing", {**own, **anchors})
        return self


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
        _refuse_all_zero("the texture", {"weight": self.weight, "anchors.rgb": self.anchors.rgb})
        if self.objective == "dsd" and self.weight.largest > 0:
            lambdas = {"lambda_realistic": self.lambda_realistic, "lambda_stable": self.lambda_stable}
            _refuse_all_zero("the dsd objective", lambdas)
        return self


class ExportConfig(Frozen):
    """Stage 6: crumbs off, decimate, unwrap, bake, GLB."""

    quality: Literal["web", "base"] = "web"
    """web: decimated, with the dense mesh's normals in a map, JPEG maps, within `size_limit_mb`; base: every triangle, lossless maps."""
    triangle_budget: int = Field(default=40_000, ge=100, le=500_000)
    """Of `web`, about: decimation may miss it by a few. No more than 150,000, and no more than fit into `size_limit_mb`."""
    texture_size: Literal[128, 256, 512, 1024, 2048, 4096] = 1024
    size_limit_mb: float = Field(default=3.0, ge=0.1, le=1000.0)
    """Of a `web` GLB, millions of bytes."""
    longest_side: float = Field(default=1.0, gt=0.0, le=10_000.0)
    """Of the object's box in the file, metres."""
    dilation: int = Field(default=8, ge=0)
    chart_padding: int = Field(default=4, ge=0)
    """Pixels between the charts of the atlas."""
    normal_map: bool = True
    bake_reach: float = Field(default=0.03, gt=0.0, le=0.5)
    """World units within which the dense mesh is looked for when `web` maps are baked."""
    roughness: float = Field(default=0.9, ge=0.0, le=1.0)
    metallic: float = Field(default=0.0, ge=0.0, le=1.0)
    crumb_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    turntable_views: int = Field(default=36, ge=2, le=360)
    turntable_size: int = Field(default=256, ge=16, le=1024)
    preview: PreviewConfig = PreviewConfig(size=256)
