"""From settings to the weights of a distillation objective at a step."""

from dreampolish.distillation.weights import (
    ScoreWeights,
    SplitWeights,
    csd_weights,
    dsd_weights,
    nfsd_weights,
    sds_weights,
    vsd_weights,
)
from schemas.config_parts import DistillationConfig


def weights_at(config: DistillationConfig, step: int, steps: int) -> ScoreWeights | SplitWeights:
    """The objective's weights over the predictions at a step of `steps`."""
    scale = config.guidance_scale.at(step, steps)
    match config.objective:
        case "sds":
            return sds_weights(scale)
        case "csd":
            return csd_weights(config.negative_share.at(step, steps))
        case "vsd":
            return vsd_weights(scale)
        case "nfsd":
            return nfsd_weights(scale)
        case "dsd":
            return dsd_weights(config.lambda_realistic.at(step, steps), config.lambda_stable.at(step, steps))
        case "weights":
            own = config.weights
            return ScoreWeights(
                own.e_y.at(step, steps),
                own.e_0.at(step, steps),
                own.e_n.at(step, steps),
                own.e_lora.at(step, steps),
                own.eps.at(step, steps),
            )


def needs_variational(config: DistillationConfig) -> bool:
    """Whether the objective reads e_lora at any time."""
    match config.objective:
        case "vsd":
            return True
        case "dsd":
            return config.lambda_realistic.start != 0 or config.lambda_realistic.end != 0
        case "weights":
            return config.weights.e_lora.start != 0 or config.weights.e_lora.end != 0
        case _:
            return False
