"""Perp-Neg (arXiv:2304.04968): a view's prompt without what it shares with a rival view's, so that no second front grows.

With u = e_y - e_0 and v = e_rival - e_0, Eq. 7 there subtracts from u the part of v that is at right angles to u. The weights are those
that the method's interpolation takes at the middle of each sector, where the prompt is one view's alone; one rival a view, the strongest.
Source of the weights: threestudio's Perp-Neg settings (f_fs = f_sf = (4, 0.5, -2.426), f_fsb = (1, 0.5, 0.967)). [choice]
"""

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
