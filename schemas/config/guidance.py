"""Settings of score distillation: one class a prior and place, each with the fields that are read there."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from schemas.base import Frozen
from schemas.schedule import Fraction, Ramp, Schedule, Weight, constant

Objective = Literal["sds", "csd", "vsd", "nfsd", "dsd", "weights"]
VARIATIONAL = ("vsd", "dsd")
"""Objectives that always read e_lora."""


def _without_lora(objective: object) -> object:
    if objective in VARIATIONAL:
        raise ValueError("needs the LoRA domain, which only the texture stage fits; use sds, csd, nfsd or weights here")
    return objective


class FrozenWeights(Frozen):
    """Weights over the frozen network's predictions, used as they are when `objective` is "weights". They must sum to 0."""

    e_y: Schedule = constant(1.0)
    e_0: Schedule = constant(-1.0)
    e_n: Schedule = constant(0.0)
    eps: Schedule = constant(0.0)

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


class TextGuidanceConfig(Frozen):
    """What every use of the text prior needs: one weighted sum over predictions; SDS, CSD, NFSD (VSD, DSD) are presets of it."""

    weight: Weight = constant(0.1)
    """Of the whole term; 0 switches it off."""
    guidance_scale: Weight = constant(20.0)
    """s of sds, vsd and nfsd; csd and dsd do not use it."""
    negative_share: Fraction = constant(0.0)
    """csd: share of the empty prompt's weight that the negative prompt takes."""
    t_min: Fraction = Ramp(start=0.7, end=0.2, until=0.1)
    """Lower bound of the timestep, fraction of the training timesteps."""
    t_max: Fraction = Ramp(start=0.85, end=0.5, until=0.1)
    negative_prompt: str = Field(default="blurry, noisy, low quality", max_length=300)
    front_deg: float = Field(default=45.0, gt=0.0, lt=180.0)
    """Half the width of the sectors that the prompt calls front and back."""


class GeometryTextConfig(TextGuidanceConfig):
    """The text prior in nerf, neus and dmtet. Source: DreamCraft3D uses SDS there; the variational domain belongs to the texture."""

    objective: Annotated[Literal["sds", "csd", "nfsd", "weights"], BeforeValidator(_without_lora)] = "sds"
    weights: FrozenWeights = FrozenWeights()
    perp_neg_weight: float = Field(default=0.0, ge=0.0)
    """Perp-Neg against second fronts, times its own view-dependent weights; 0: off, else one network call more a picture."""


class DistillationConfig(TextGuidanceConfig):
    """The text prior in the texture stage, with its variational domain: a LoRA fitted to the current renders."""

    objective: Objective = "dsd"
    lambda_realistic: Weight = constant(1.0)
    """dsd: weight of e_y - e_lora, the variational domain."""
    lambda_stable: Weight = constant(1.0)
    """dsd: weight of e_y - e_0, the unconditional image domain."""
    weights: PredictionWeights = PredictionWeights()
    lora_rank: int = Field(default=8, ge=1, le=256)
    lora_lr: float = Field(default=1e-3, gt=0.0)
    """source: ProlificDreamer has 1e-4 over thousands of steps; in the hundred or so of `home` such a LoRA lags behind the renders, so that
    e_y - e_lora is largely noise. [choice: with 1e-3 DSD painted two objects tried 0.2 to 0.3 dB nearer to the truth]"""
    lora_steps: int = Field(default=1, ge=0)
    """LoRA updates per step of the stage, for objectives that read e_lora."""
    camera_dropout: float = Field(default=0.1, ge=0.0, le=1.0)
    """Probability with which a LoRA update sees a zeroed camera. source: threestudio."""


class ViewGuidanceConfig(Frozen):
    """SDS from the view-conditioned prior. source: DreamCraft3D (scale 5, t .7-.85 -> .2-.5), which the `sd` preset uses; the
    embedded prior is best at high noise, where one step already gives shape and place, and at a lower scale."""

    weight: Weight = constant(0.1)
    guidance_scale: Weight = constant(2.0)
    t_min: Fraction = Ramp(start=0.7, end=0.5, until=0.1)
    t_max: Fraction = Ramp(start=0.9, end=0.75, until=0.5)


class ViewTargetsConfig(Frozen):
    """Novel views that the view prior paints whole, and that renders are then held to. source of the idea: CAT3D (arXiv:2405.10314)
    reconstructs from painted views; Instruct-NeRF2NeRF (arXiv:2303.12789) renews them from the reconstruction. [choice: a small
    prior's single scores are too noisy for the few steps of `home`; its whole pictures, renewed, are not]"""

    rgb_weight: Weight = constant(0.0)
    """Of the mean squared difference of colours; 0 with mask_weight 0: no views are painted."""
    mask_weight: Weight = constant(0.0)
    """Of the same of coverage."""
    inside_only: bool = False
    """Whether colours count only where both pictures are well inside the object: at its edge they are partly background, which a
    mesh, unlike a volume, would take on."""
    n_views: int = Field(default=24, ge=1, le=256)
    elevations_deg: tuple[Annotated[float, Field(gt=-90.0, lt=90.0)], ...] = Field(default=(5.0, 35.0, 15.0), min_length=1)
    """In turn, around the object."""
    paint_at: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] = (0.0, 0.35, 0.65)
    """Progress at which the views are painted anew from the present renders."""
    strength: Fraction = Ramp(start=1.0, end=0.4)
    """Noise that the renders get first, fraction of the timesteps; 1: what was there does not matter."""
    guidance_scale: float = Field(default=2.0, ge=0.0)
    sampling_steps: int = Field(default=6, ge=1, le=1000)
    """Few: the views are then nearer to what the prior holds likely on the whole, and agree better with one another than samples that
    are sharp each for itself. [choice]"""
    renewed: float = Field(default=1.0, ge=0.0, le=1.0)
    """DDIM's eta: share of the noise drawn anew at every sampling step."""

    @property
    def wanted(self) -> bool:
        """Whether any view is painted."""
        return self.rgb_weight.largest > 0 or self.mask_weight.largest > 0
