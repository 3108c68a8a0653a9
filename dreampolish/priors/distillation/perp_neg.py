"""Perp-Neg (arXiv:2304.04968): a view's prompt without what it shares with a rival view's, so that no second front grows.

With u = e_y - e_0 and v = e_rival - e_0, Eq. 7 there subtracts from u the part of v that is at right angles to u. The weights are those
that the method's interpolation takes at the middle of each sector, where the prompt is one view's alone; one rival a view, the strongest.
Source of the weights: threestudio's Perp-Neg settings (f_fs = f_sf = (4, 0.5, -2.426), f_fsb = (1, 0.5, 0.967)). [choice]

With interpolation by azimuth (`blend_at`), a prompt goes over from front to side and from side to back, and each view has two rivals
(source: threestudio's `get_text_embeddings_perp_neg`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.protocols import TextEmbedding

RIVALS = {
    "front view": ("side view", 1.574),
    "side view": ("front view", 1.574),
    "back view": ("front view", 1.967),
    "overhead view": ("front view", 0.0),
}
"""The view whose prompt each view is kept away from, and how strongly."""


@dataclass(frozen=True)
class Rival:
    """The rival prompts of a batch of views and their weights, 0 or more."""

    text: TextEmbedding
    weights: Float[Tensor, " b"]


@dataclass(frozen=True)
class Blend:
    """A view's prompt as a mixture of two view words' prompts, and its two rivals with their weights, 0 or more.

    words: of the mixture. share: of the first of them, 0..1.
    """

    words: tuple[str, str]
    share: float
    rivals: tuple[tuple[str, float], tuple[str, float]]


FRONT_SIDE, SIDE_FRONT = (4.0, 0.5, -2.426), (4.0, 0.5, -2.426)
SIDE_BACK, FRONT_BACK = (1.0, 0.5, -0.606), (1.0, 0.5, 0.967)
"""(a, b, c) of the rivals' weights a exp(-b r) + c, r from 0 to 1 over a quarter turn (source: threestudio: f_fs, f_sf, f_sb, f_fsb)."""


def _weight(numbers: tuple[float, float, float], r: float) -> float:
    a, b, c = numbers
    return max(a * math.exp(-b * r) + c, 0.0)


def blend_at(azimuth_deg: float, elevation_deg: float, overhead_deg: float) -> Blend:
    """Prompt and rivals of a view; azimuth 0 is the front. From overhead_deg upwards the view has one word and no rival."""
    if elevation_deg > overhead_deg:
        return Blend(("overhead view", "overhead view"), 1.0, (("front view", 0.0), ("side view", 0.0)))
    quarter = abs((azimuth_deg + 180) % 360 - 180) / 90
    if quarter < 1:
        r = 1 - quarter
        rivals = ("front view", _weight(FRONT_SIDE, r)), ("side view", _weight(SIDE_FRONT, 1 - r))
        return Blend(("front view", "side view"), r, rivals)
    r = 2 - quarter
    return Blend(("side view", "back view"), r, (("side view", _weight(SIDE_BACK, r)), ("front view", _weight(FRONT_BACK, r))))


def without_rivals(
    prompt: Float[Tensor, "b c m n"],
    empty: Float[Tensor, "b c m n"],
    rivals: Sequence[tuple[Float[Tensor, "b c m n"], Float[Tensor, " b"]]],
) -> Float[Tensor, "b c m n"]:
    """e_y less, for every rival's prediction and weight, the weighted part at right angles to e_y - e_0; each by itself."""
    changes = [without_rival(prompt, empty, rival, weights) - prompt for rival, weights in rivals]
    return prompt + sum(changes, torch.zeros_like(prompt))


def without_rival(
    prompt: Float[Tensor, "b c m n"],
    empty: Float[Tensor, "b c m n"],
    rival: Float[Tensor, "b c m n"],
    weights: Float[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """e_y less `weights` times the part of e_rival - e_0 that is at right angles to e_y - e_0, each sample for itself.

    Where e_y = e_0 there is no direction to keep, and the whole of e_rival - e_0 counts.
    """
    wanted, other = prompt - empty, rival - empty
    share = (wanted * other).sum(dim=(1, 2, 3)) / wanted.square().sum(dim=(1, 2, 3)).clamp_min(torch.finfo(wanted.dtype).tiny)
    perpendicular = other - share[:, None, None, None] * wanted
    return prompt - weights[:, None, None, None] * perpendicular
