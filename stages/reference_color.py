"""Learning colours from the reference picture: only well inside the object, since the pixels at its edge are partly background."""

import torch
from jaxtyping import Float
from torch import Tensor

from stages.reference_view import ReferenceView


def reference_color_loss(rgb: Float[Tensor, "1 h w 3"], view: ReferenceView, erosion: int) -> Float[Tensor, ""]:
    """Mean absolute colour difference on the reference's mask, eroded by `erosion` pixels (source: DreamCraft3D)."""
    outside = 1 - (view.mask[:, None] > 0.5).float()
    outside = torch.nn.functional.max_pool2d(outside, 2 * erosion + 1, stride=1, padding=erosion)
    inside = 1 - outside[:, 0, :, :, None]
    return ((rgb - view.rgb).abs() * inside).sum() / (3 * inside.sum().clamp_min(1.0))
