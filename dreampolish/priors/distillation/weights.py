"""Every distillation objective as weights over five predictions.

Notation: delta = a_y e_y + a_0 e_0 + a_n e_n + a_lora e_lora + a_eps eps, where e_y is the prediction for the prompt, e_0 for
the empty prompt, e_n for the negative prompt, e_lora of the variational (LoRA) network, eps the injected noise; the gradient
that reaches a latent is w(t) delta. The weights of an objective sum to 0, so that a perfect prior moves nothing, with one
exception: NFSD below its split timestep takes e_0 itself for the domain correction (source: NFSD, arXiv:2310.17590, Sec. 4).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ScoreWeights:
    """Weights over the five predictions; unused ones are 0 and cost nothing."""

    prompt: float
    empty: float
    negative: float
    variational: float
    noise: float

    def total(self) -> float:
        """The sum of the weights."""
        return self.prompt + self.empty + self.negative + self.variational + self.noise


@dataclass(frozen=True)
class SplitWeights:
    """Weights that differ below a timestep: `low` where t < split_timestep, `high` elsewhere."""

    low: ScoreWeights
    high: ScoreWeights
    split_timestep: int


def sds_weights(guidance_scale: float) -> ScoreWeights:
    """(e_y - eps) + (s - 1)(e_y - e_0) (source: DreamFusion, arXiv:2209.14988, Eq. 3 with classifier-free guidance)."""
    return ScoreWeights(prompt=guidance_scale, empty=1 - guidance_scale, negative=0.0, variational=0.0, noise=-1.0)


def csd_weights(negative_share: float) -> ScoreWeights:
    """e_y + a e_0 + b e_n with a + b = -1, b = -negative_share in [0, 1] (source: CSD, arXiv:2310.19415, Eq. 8)."""
    return ScoreWeights(prompt=1.0, empty=negative_share - 1, negative=-negative_share, variational=0.0, noise=0.0)


def vsd_weights(guidance_scale: float) -> ScoreWeights:
    """(e_y - e_lora) + (s - 1)(e_y - e_0) (source: ProlificDreamer, arXiv:2305.16213, Eq. 9)."""
    return ScoreWeights(prompt=guidance_scale, empty=1 - guidance_scale, negative=0.0, variational=-1.0, noise=0.0)


NFSD_SPLIT = 200
"""Timestep, of 1000, below which NFSD takes e_0 for the domain correction (source: NFSD, Eq. 7)."""


def nfsd_weights(guidance_scale: float) -> SplitWeights:
    """d + s (e_y - e_0) with d = e_0 for t < NFSD_SPLIT, else e_0 - e_n (source: NFSD, arXiv:2310.17590, Eq. 7)."""
    low = ScoreWeights(prompt=guidance_scale, empty=1 - guidance_scale, negative=0.0, variational=0.0, noise=0.0)
    high = ScoreWeights(prompt=guidance_scale, empty=1 - guidance_scale, negative=-1.0, variational=0.0, noise=0.0)
    return SplitWeights(low, high, NFSD_SPLIT)


def dsd_weights(lambda_realistic: float, lambda_stable: float) -> ScoreWeights:
    """lambda_realistic (e_y - e_lora) + lambda_stable (e_y - e_0).

    Source: the form that DreamPolish's abstract (arXiv:2411.01602) and its two weights determine; our reading, not its equation.
    """
    return ScoreWeights(
        prompt=lambda_realistic + lambda_stable, empty=-lambda_stable, negative=0.0, variational=-lambda_realistic, noise=0.0
    )


def needs(weights: ScoreWeights | SplitWeights) -> set[str]:
    """Names of the predictions with a weight other than 0 anywhere."""
    parts = [weights.low, weights.high] if isinstance(weights, SplitWeights) else [weights]
    return {name for part in parts for name in NAMES if getattr(part, name) != 0}


NAMES = ("prompt", "empty", "negative", "variational", "noise")


def weighted_delta(
    scores: dict[str, Float[Tensor, "b c m n"]], weights: ScoreWeights | SplitWeights, timesteps: Int[Tensor, " b"]
) -> Float[Tensor, "b c m n"]:
    """The weighted sum of the predictions in `scores` (keys of NAMES); a prediction that is needed and missing is a KeyError."""
    delta = torch.zeros_like(next(iter(scores.values())))
    for name in sorted(needs(weights)):
        delta = delta + _weight_of(name, weights, timesteps)[:, None, None, None] * scores[name]
    return delta


def _weight_of(name: str, weights: ScoreWeights | SplitWeights, timesteps: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    if isinstance(weights, ScoreWeights):
        return torch.full(timesteps.shape, float(getattr(weights, name)), device=timesteps.device)
    low, high = float(getattr(weights.low, name)), float(getattr(weights.high, name))
    return torch.where(timesteps < weights.split_timestep, low, high)
