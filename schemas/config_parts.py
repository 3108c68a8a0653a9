"""Settings that several stages share: cameras, grids, guidance, anchors on the reference view, when to stop."""

from typing import Literal

from pydantic import Field

from schemas.frozen import Frozen
from schemas.schedule import Ramp, Schedule, constant

Objective = Literal["sds", "csd", "vsd", "nfsd", "dsd", "weights"]


class CameraConfig(Frozen):
    """Where guidance looks from, degrees. `widen_until`: progress at which azimuths, from the front on, reach their range."""

    azimuth_deg: tuple[float, float] = (-180.0, 180.0)
    elevation_deg: tuple[float, float] = (-10.0, 45.0)
    fov_deg: tuple[float, float] = (20.0, 20.0)
    widen_until: float = Field(default=0.05, ge=0.0, le=1.0)


class HashGridConfig(Frozen):
    """Multiresolution hash grid. source: DreamCraft3D (16 levels, 2^19 entries, growth 1.447), cut down for two cores."""

    n_levels: int = Field(default=8, ge=1, le=24)
    n_features: int = Field(default=2, ge=1, le=8)
    log2_table_size: int = Field(default=15, ge=4, le=24)
    base_resolution: int = Field(default=8, ge=2)
    growth: float = Field(default=1.447, gt=1.0, le=2.5)
    hidden_size: int = Field(default=64, ge=4)
    start_level: int = Field(default=5, ge=1)
    """Levels active at the start; the rest open one by one until `full_at`."""
    full_at: float = Field(default=0.6, ge=0.0, le=1.0)
    """Progress at which every level is active."""


class PredictionWeights(Frozen):
    """Weights over the score networks' predictions, used as they are when `objective` is "weights". They must sum to 0."""

    e_y: Schedule = constant(1.0)
    e_0: Schedule = constant(-1.0)
    e_n: Schedule = constant(0.0)
    e_lora: Schedule = constant(0.0)
    eps: Schedule = constant(0.0)


class DistillationConfig(Frozen):
    """Score distillation from the text prior: one weighted sum over predictions; SDS, CSD, VSD, NFSD, DSD are presets of it."""

    weight: Schedule = constant(0.1)
    """Of the whole term; 0 switches it off."""
    objective: Objective = "sds"
    guidance_scale: Schedule = constant(20.0)
    """s of sds, vsd and nfsd; csd and dsd do not use it."""
    lambda_realistic: Schedule = constant(1.0)
    """dsd: weight of e_y - e_lora, the variational domain."""
    lambda_stable: Schedule = constant(1.0)
    """dsd: weight of e_y - e_0, the unconditional image domain."""
    negative_share: Schedule = constant(0.0)
    """csd: share of the empty prompt's weight that the negative prompt takes."""
    weights: PredictionWeights = PredictionWeights()
    t_min: Schedule = Ramp(start=0.7, end=0.2, until=0.1)
    """Lower bound of the timestep, fraction of the training timesteps."""
    t_max: Schedule = Ramp(start=0.85, end=0.5, until=0.1)
    negative_prompt: str = "blurry, noisy, low quality"
    lora_rank: int = Field(default=8, ge=1, le=256)
    lora_lr: float = Field(default=1e-4, gt=0.0)
    lora_steps: int = Field(default=1, ge=0)
    """LoRA updates per step of the stage, for objectives that read e_lora."""
    front_deg: float = Field(default=45.0, gt=0.0, lt=180.0)
    """Half the width of the sectors that the prompt calls front and back."""
    perp_neg_weight: float = Field(default=0.0, ge=0.0)
    """Perp-Neg against second fronts; 0: off."""


class ViewGuidanceConfig(Frozen):
    """SDS from the view-conditioned prior. source: DreamCraft3D (scale 5, t .7-.85 -> .2-.5), which the `sd` preset uses; the
    embedded prior is best at high noise, where one step already gives shape and place, and at a lower scale."""

    weight: Schedule = constant(0.1)
    guidance_scale: Schedule = constant(2.0)
    t_min: Schedule = Ramp(start=0.7, end=0.5, until=0.1)
    t_max: Schedule = Ramp(start=0.9, end=0.75, until=0.5)


class AnchorConfig(Frozen):
    """Weights of the losses on the reference view. source: DreamCraft3D (rgb 1000, mask 100, depth .05)."""

    rgb: Schedule = constant(1000.0)
    mask: Schedule = constant(100.0)
    depth: Schedule = constant(0.0)
    normal: Schedule = constant(0.0)


class SwitchConfig(Frozen):
    """When a stage hands over: on a measured plateau of reference PSNR and opacity entropy, or at its step cap."""

    criterion: Literal["plateau", "early", "late"] = "plateau"
    """early: at `min_fraction` of the steps; late: at the cap; plateau: between the two."""
    window: int = Field(default=50, ge=2)
    psnr_tolerance_db: float = Field(default=0.1, ge=0.0)
    entropy_tolerance: float = Field(default=0.01, ge=0.0)
    min_fraction: float = Field(default=0.6, ge=0.0, le=1.0)
