"""Bytes of networks of transformers that look at one picture without a graph: depth estimators, and the CLIP that judges."""

from typing import Any

import torch
import transformers

from dreampolish.optim.live_bytes import LiveBytes
from dreampolish.priors.estimators.depth import USUAL_SIDE
from dreampolish.priors.folders.architectures import TRANSFORMERS_BASE, checked_transformers
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.folders.weights import tensors_of
from dreampolish.priors.memory.on_meta import META, fused_attention

FLOAT32 = 4
"""Bytes of a number: both are opened whole."""


def depth_bytes(source: PriorSource) -> int:
    """Weights of a depth estimator, and the peak of looking at one picture; of one that cannot be laid out on `meta` the weights twice."""
    _, config, found = checked_transformers(source.folder(), transformers.AutoModelForDepthEstimation)
    weights = found.n_parameters * FLOAT32
    side = int(getattr(getattr(config, "backbone_config", None) or config, "image_size", None) or USUAL_SIDE)
    try:
        with META:
            network: Any = transformers.AutoModelForDepthEstimation.from_config(config).eval()
            picture = torch.empty(1, 3, side, side)
        with torch.no_grad(), fused_attention(), LiveBytes([*network.parameters(), *network.buffers()]) as live:
            network(pixel_values=picture)
    except (RuntimeError, NotImplementedError, TypeError):
        return 2 * weights
    return weights + live.peak


def scorer_bytes(source: PriorSource) -> int:
    """Weights of a CLIP; pictures of 224 pixels take little beside them."""
    return tensors_of(source.folder(), TRANSFORMERS_BASE).n_parameters * FLOAT32
