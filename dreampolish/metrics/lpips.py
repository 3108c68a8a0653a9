"""Real LPIPS, version 0.1 on AlexNet, in plain torch: the distance of Zhang et al. 2018 (arXiv:1801.03924, Eq. 1).

    d(x, y) = sum over layers l of mean over places of  w_l . (u_l(x) - u_l(y))^2

with u_l the activations of AlexNet's five ReLUs, each place's channels scaled to unit length, and w_l learned, not negative. Source:
github.com/richzhang/PerceptualSimilarity, whose weights are read after a conversion:

    python -m dreampolish.training.converters alexnet-owt-7be5be79.pth alex.pth FOLDER

Figures named `lpips` come from here alone.
"""

from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

BACKBONE, LINEAR = "alexnet.safetensors", "lpips_alex.safetensors"
LAYERS = ((0, 3, 64, 11, 4, 2), (3, 64, 192, 5, 1, 2), (6, 192, 384, 3, 1, 1), (8, 384, 256, 3, 1, 1), (10, 256, 256, 3, 1, 1))
"""Of torchvision's AlexNet: place in `features`, channels in and out, kernel, stride, padding."""
POOLED_BEFORE = (3, 6)
"""Layers that a max pool of 3, stride 2, goes before."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1] before AlexNet."""
SMALLEST = 64
"""Pixels of a side below which the last layers see nothing."""


class LpipsError(ValueError):
    """LPIPS cannot be opened; the message says what, where and what to do, in one line."""


class Lpips(nn.Module):
    """The distance. `features`, `lin`: the parts' names in the original files, so that they load as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                str(place): nn.Conv2d(
                    in_channels=inputs, out_channels=outputs, kernel_size=kernel, stride=stride, padding=padding
                )
                for place, inputs, outputs, kernel, stride, padding in LAYERS
            }
        )
        self.lin = nn.ModuleList(nn.Conv2d(outputs, 1, 1, bias=False) for _, _, outputs, _, _, _ in LAYERS)

    def forward(self, first: Float[Tensor, "b h w 3"], second: Float[Tensor, "b h w 3"]) -> Float[Tensor, " b"]:
        """LPIPS of pairs of pictures in [0, 1], one a pair, 0 if equal; differentiable. ValueError below 64 pixels a side."""
        if min(first.shape[1:3]) < SMALLEST:
            raise ValueError(f"LPIPS needs pictures of {SMALLEST} pixels a side or more, these are {tuple(first.shape[1:3])}")
        total = first.new_zeros(len(first))
        for weight, one, other in zip(self.lin, self._activations(first), self._activations(second), strict=True):
            total = total + weight((one - other).square()).mean(dim=(1, 2, 3))
        return total

    def _activations(self, images: Tensor) -> list[Tensor]:
        shift, scale = (images.new_tensor(values).view(1, 3, 1, 1) for values in (SHIFT, SCALE))
        x = (images.movedim(-1, 1) * 2 - 1 - shift) / scale
        found = []
        for place, layer in self.features.items():
            if int(place) in POOLED_BEFORE:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(layer(x))
            # 1e-10 beside the length, as the original has it.
            found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found


@lru_cache(maxsize=1)
def load_lpips(folder: Path, device: torch.device) -> Lpips:
    """Open LPIPS from a folder made by `lpips_conversion`; kept open for the next call. Raises LpipsError."""
    missing = [name for name in (BACKBONE, LINEAR) if not (folder / name).is_file()]
    if missing:
        raise LpipsError(
            f"{folder.absolute()} lacks {', '.join(missing)}: make it with python -m dreampolish.training.converters"
        )
    network = Lpips()
    try:
        network.load_state_dict({**load_file(folder / BACKBONE), **load_file(folder / LINEAR)}, strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LpipsError(
            f"the LPIPS weights in {folder.absolute()} are damaged or of another kind: {str(error).splitlines()[0]}"
        ) from error
    return network.eval().requires_grad_(False).to(device)
