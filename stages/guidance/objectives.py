"""From settings to the weights of a distillation objective at a step."""

from typing import assert_never

from dreampolish.priors.distillation.weights import (
    ScoreWeights,
    SplitWeights,
    csd_weights,
    dsd_weights,
    nfsd_weights,
    sds_weights,
    vsd_weights,
)
from schemas.config.shared.guidance import DistillationConfig, FrozenWeights, GeometryTextConfig, PredictionWeights


def weights_at(config: GeometryTextConfig | DistillationConfig, step: int, steps: int) -> ScoreWeights | SplitWeights:
    """The objective's weights over the predictions at a step of `steps`."""
    scale = config.guidance_scale.at(step, steps)
    match config.objective:
        case "sds":
            return sds_weights(scale)
        case "csd":
            return csd_weights(config.negative_share.at(step, steps))
        case "nfsd":
            return nfsd_weights(scale)
        case "weights":
            return _own_weights(config.weights, step, steps)
        case "vsd":
            return vsd_weights(scale)
        case "dsd":
            assert isinstance(config, DistillationConfig)
            return dsd_weights(config.lambda_realistic.at(step, steps), config.lambda_stable.at(step, steps))
    assert_never(config.objective)


def _own_weights(own: FrozenWeights, step: int, steps: int) -> ScoreWeights:
    variational = own.e_lora.at(step, steps) if isinstance(own, PredictionWeights) else 0.0
    prompt, empty, negative, noise = (ramp.at(step, steps) for ramp in (own.e_y, own.e_0, own.e_n, own.eps))
    return ScoreWeights(prompt=prompt, empty=empty, negative=negative, variational=variational, noise=noise)


def needs_variational(config: DistillationConfig) -> bool:
    """Whether the objective reads e_lora at any time."""
    match config.objective:
        case "vsd":
            return True
        case "dsd":
            return config.lambda_realistic.largest > 0
        case "weights":
            return config.weights.e_lora.start != 0 or config.weights.e_lora.end != 0
        case "sds" | "csd" | "nfsd":
            return False
    assert_never(config.objective)
