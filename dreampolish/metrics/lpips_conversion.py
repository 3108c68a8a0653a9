"""The original weights of LPIPS to safetensors: `python -m dreampolish.metrics.lpips_conversion ALEXNET.pth ALEX.pth FOLDER`.

ALEXNET.pth: torchvision's alexnet-owt-7be5be79.pth; ALEX.pth: lpips/weights/v0.1/alex.pth of PyPI's lpips. The originals are pickles,
so this command, and nothing at run time, reads them, with torch's reader that takes tensors only.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dreampolish.metrics.lpips import BACKBONE, LAYERS, LINEAR


def backbone_from_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AlexNet's convolutions; the classifier is left out. KeyError for what is missing."""
    names = [f"features.{layer[0]}.{part}" for layer in LAYERS for part in ("weight", "bias")]
    return {name: weights[name].float().contiguous() for name in names}


def linear_from_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The five weightings of channels. KeyError for what is missing, ValueError for negative ones, which LPIPS never has."""
    found = {f"lin.{index}.weight": weights[f"lin{index}.model.1.weight"].float().contiguous() for index in range(len(LAYERS))}
    if any(bool((weight < 0).any()) for weight in found.values()):
        raise ValueError("LPIPS weighs no channel negatively: these are other weights")
    return found


def convert(alexnet: Path, alex: Path, folder: Path) -> None:
    """Read both originals and write both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(backbone_from_torchvision(_tensors(alexnet)), folder / BACKBONE)
    save_file(linear_from_original(_tensors(alex)), folder / LINEAR)


def _tensors(path: Path) -> Mapping[str, Tensor]:
    found: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Convert the original weights of LPIPS to safetensors.")
    parser.add_argument("alexnet", type=Path)
    parser.add_argument("alex", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    convert(options.alexnet, options.alex, options.folder)


if __name__ == "__main__":
    main()
