"""Settings of guidance by the text and view priors: one class for each prior and place of use."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from schemas.base import Frozen
from schemas.config.shared.schedule import Fraction, Ramp, Schedule, Weight, constant

Objective = Literal["sds", "csd", "vsd", "nfsd", "dsd", "weights"]
VARIATIONAL = ("vsd", "dsd")
"""Objectives that always read e_lora."""


def _without_lora(objective: object) -> object:
    if objective in VARIATIONAL:
        raise ValueError("needs the LoRA domain, which only the texture stage fits; use sds, csd, nfsd or weights here")
    return objective


class FrozenWeights(Frozen):
    """Weights over the frozen network's predictions, for the objective "weights". They must sum to 0."""

    e_y: Schedule = constant(1.0)
    """Weight of the prediction for the prompt."""
    e_0: Schedule = constant(-1.0)
    """Weight of the prediction for the empty prompt."""
    e_n: Schedule = constant(0.0)
    """Weight of the prediction for the negative prompt."""
    eps: Schedule = constant(0.0)
    """Weight of the noise that was added."""

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        ramps: list[Ramp] = [getattr(self, name) for name in type(self).model_fields]
        corners = sorted({0.0, 1.0, *(ramp.begin for ramp in ramps), *(ramp.until for ramp in ramps)})
        # Linear between corners, so corners and the middles between them say all.
        for progress in (*corners, *((low + high) / 2 for low, high in pairwise(corners))):
            total = sum(ramp.at_progress(progress) for ramp in ramps)
            if abs(total) > 1e-6 * max(1.0, *(abs(ramp.at_progress(progress)) for ramp in ramps)):
                raise ValueError(f"the weights of the predictions must sum to 0, but sum to {total:g} at progress {progress:g}")
        return self


class PredictionWeights(FrozenWeights):
    """The same, with the variational network's prediction among them."""

    e_lora: Schedule = constant(0.0)
    """Weight of the variational network's prediction."""


class TextGuidanceConfig(Frozen):
    """What every use of the text prior needs: one weighted sum over predictions; SDS, CSD, NFSD, VSD and DSD are presets of it."""

    weight: Weight = constant(0.1)
    """Weight of the whole term; 0 switches it off."""
    guidance_scale: Weight = constant(20.0)
    """Classifier-free guidance scale of sds, vsd and nfsd; csd and dsd do not use it."""
    negative_share: Fraction = constant(0.0)
    """csd: share of the empty prompt's weight that the negative prompt takes, 0..1."""
    t_min: Fraction = Ramp(start=0.7, end=0.2, until=0.1)
    """Lower bound of the timestep, fraction of the training timesteps."""
    t_max: Fraction = Ramp(start=0.85, end=0.5, until=0.1)
    """Upper bound of the timestep, fraction of the training timesteps."""
    negative_prompt: str = Field(default="blurry, noisy, low quality", max_length=300)
    """What the renders should not show; read by csd (with `negative_share`), nfsd and weights."""
    front_deg: float = Field(default=45.0, gt=0.0, lt=180.0)
    """Half the width of the sectors that the prompt calls front and back, degrees."""


class GeometryTextConfig(TextGuidanceConfig):
    """The text prior in nerf, neus and dmtet; objectives with a variational domain belong to the texture."""

    objective: Annotated[Literal["sds", "csd", "nfsd", "weights"], BeforeValidator(_without_lora)] = "sds"
    """Score distillation objective."""
    weights: FrozenWeights = FrozenWeights()
    """Weights of the predictions for the objective "weights"."""
    perp_neg_weight: float = Field(default=0.0, ge=0.0)
    """Factor on Perp-Neg's weights against second fronts; 0: off, else one or, by azimuth, two more network calls a picture."""
    view_prompts: Literal["sectors", "azimuth"] = "sectors"
    """How a prompt gets its view's words: by sectors, or mixed by azimuth (source: threestudio)."""


class DistillationConfig(TextGuidanceConfig):
    """The text prior in the texture stage, with its variational domain: a LoRA fitted to the current renders."""

    objective: Objective = "dsd"
    """Score distillation objective."""
    lambda_realistic: Weight = constant(1.0)
    """dsd: weight of e_y - e_lora, the variational domain."""
    lambda_stable: Weight = constant(1.0)
    """dsd: weight of e_y - e_0, the unconditional image domain."""
    weights: PredictionWeights = PredictionWeights()
    """Weights of the predictions for the objective "weights"."""
    lora_rank: int = Field(default=8, ge=1, le=256)
    """Rank of the LoRA."""
    lora_lr: float = Field(default=1e-3, gt=0.0)
    """AdamW's learning rate of the LoRA."""
    lora_steps: int = Field(default=1, ge=0)
    """LoRA updates per step of the stage, for objectives that read e_lora."""
    camera_dropout: float = Field(default=0.1, ge=0.0, le=1.0)
    """Probability with which a LoRA update sees a zeroed camera (source: threestudio)."""


class ViewGuidanceConfig(Frozen):
    """SDS from the view-conditioned prior."""

    weight: Weight = constant(0.1)
    """Weight of the whole term; 0 switches it off."""
    guidance_scale: Weight = constant(2.0)
    """Classifier-free guidance scale towards the reference."""
    t_min: Fraction = Ramp(start=0.7, end=0.5, until=0.1)
    """Lower bound of the timestep, fraction of the training timesteps."""
    t_max: Fraction = Ramp(start=0.9, end=0.75, until=0.5)
    """Upper bound of the timestep, fraction of the training timesteps."""


class ViewTargetsConfig(Frozen):
    """Novel views that the view prior paints whole; renders are then held to them (source: CAT3D, Instruct-NeRF2NeRF)."""

    rgb_weight: Weight = constant(0.0)
    """Weight of the mean squared difference of colours; with `mask_weight` 0 too, no views are painted."""
    mask_weight: Weight = constant(0.0)
    """Weight of the mean squared difference of coverage."""
    inside_only: bool = False
    """Whether colours count only where a pixel and its neighbours lie inside the object in both pictures."""
    n_views: int = Field(default=24, ge=1, le=256)
    """Views painted, evenly around the object."""
    elevations_deg: tuple[Annotated[float, Field(gt=-90.0, lt=90.0)], ...] = Field(default=(5.0, 35.0, 15.0), min_length=1)
    """Elevations of the views, degrees, used in turn."""
    paint_at: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = (0.0, 0.35, 0.65)
    """Progress (0..1) at which the views are painted anew from the present renders."""
    strength: Fraction = Ramp(start=1.0, end=0.4)
    """Noise added to the renders before painting, fraction of the timesteps; 1: painted from noise alone."""
    guidance_scale: float = Field(default=2.0, ge=0.0)
    """Classifier-free guidance scale towards the reference."""
    sampling_steps: int = Field(default=6, ge=1, le=1000)
    """DDIM steps of each painting."""
    renewed: float = Field(default=1.0, ge=0.0, le=1.0)
    """DDIM's eta: share of the noise drawn anew at each sampling step; 0: deterministic."""
    paper_tolerance: float = Field(default=0.03, ge=0.0, le=1.0)
    """Distance from white (largest over the channels) that a painted background may have, 0..1."""
    full_ink: float = Field(default=0.06, gt=0.0, le=1.0)
    """Distance from white beyond `paper_tolerance` from which a pixel belongs fully to the object, 0..1."""

    given_within_deg: float = Field(default=20.0, ge=0.0, le=180.0)
    """Of several pictures of a user's: largest angle at which the view next to one moves there and shows it, unpainted, degrees."""

    @property
    def wanted(self) -> bool:
        """Whether any view is painted."""
        return self.rgb_weight.largest > 0 or self.mask_weight.largest > 0
