"""The depth prior: how far away a picture's pixels are, up to scale and origin, by a depth estimator of transformers.

Depth Anything and DPT give disparity, which grows towards the viewer, unless their config says that they are metric; ZoeDepth and other
metric ones give distance.
"""

import json
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForDepthEstimation

from dreampolish.priors.folders.architectures import checked_transformers
from dreampolish.priors.folders.loading import open_transformers
from dreampolish.priors.folders.source import PriorError, PriorSource

METRIC = ("zoedepth", "depth_pro")
"""Types of models whose output is a distance."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""(means, deviations) that pictures are normalised with where the folder says nothing else."""
USUAL_SIDE = 518
"""Pixels of a side that Depth Anything works at."""


class DepthPrior:
    """A frozen depth estimator. side: of the pictures that it sees, pixels. mean, deviation: of red, green and blue."""

    def __init__(
        self, network: Any, side: int, mean: tuple[float, ...], deviation: tuple[float, ...], *, is_metric: bool
    ) -> None:
        self.network, self._side, self._is_metric = network, side, is_metric
        self._mean, self._deviation = mean, deviation

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    @torch.no_grad()
    def estimate(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
        """Depth that grows away from the viewer, at the pictures' size; only differences mean something. No gradient."""
        mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self._mean, self._deviation))
        size = (self._side, self._side)
        sized = functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        found = self.network(pixel_values=(sized - mean) / deviation).predicted_depth
        found = functional.interpolate(found[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        return found if self._is_metric else -found


def check_depth(source: PriorSource) -> None:
    """PriorError, in one line and by headers alone, for a folder that is no depth estimator of transformers, or is damaged."""
    folder = source.folder()
    _, config, _ = checked_transformers(folder, AutoModelForDepthEstimation)
    if type(config) not in AutoModelForDepthEstimation._model_mapping:
        raise PriorError(f"{folder} is a {config.model_type} model, no depth estimator: take Depth Anything's or DPT's folder")


def load_depth_prior(source: PriorSource) -> DepthPrior:
    """Open a folder of transformers' depth estimators. PriorError in one line where it is none, or is damaged."""
    check_depth(source)
    folder = source.folder()
    network = open_transformers(folder, AutoModelForDepthEstimation)
    config = network.config
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_text()) if path.is_file() else {}
    inner = getattr(config, "backbone_config", None) or config
    side = int(getattr(inner, "image_size", None) or USUAL_SIDE)
    is_metric = config.model_type in METRIC or getattr(config, "depth_estimation_type", "relative") == "metric"
    mean, deviation = tuple(said.get("image_mean", IMAGENET[0])), tuple(said.get("image_std", IMAGENET[1]))
    return DepthPrior(network, side, mean, deviation, is_metric=is_metric)
