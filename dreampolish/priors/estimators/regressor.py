"""A normal prior of one step: a network in an ONNX file that gives a picture's normals at once (DSINE, Omnidata and others, exported).

Its axes are a setting, for the networks differ. Values within 0..1 are read as (n + 1) / 2, others as n.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dreampolish.priors.folders.source import PriorError, PriorSource, json_object

FILE, SETTINGS = "model.onnx", "preprocessor_config.json"
USUAL_SIDE = 384
"""Pixels of a side where the file leaves it open (source: Omnidata's DPT)."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""(means, deviations) that pictures are normalised with where the folder says nothing else."""
SIGNS = {"right": 1.0, "left": -1.0, "up": 1.0, "down": -1.0, "viewer": 1.0, "away": -1.0}


def signs_of_axes(axes: str) -> Float[Tensor, "1 3 1 1"]:
    """Factors that turn a network's normals into ours. axes: where its x, y and z point, as "right up viewer", which is ours."""
    return torch.tensor([SIGNS[word] for word in axes.split()]).view(1, 3, 1, 1)


class NormalRegressor:
    """Normals of a picture by one pass (protocols.NormalPrior). axes: where the network's x, y and z point: "right up viewer" is ours."""

    def __init__(self, session: Any, normalisation: tuple[tuple[float, ...], tuple[float, ...]], axes: str) -> None:
        given = session.get_inputs()[0]
        self._session, self._name = session, given.name
        self.image_size = next((int(side) for side in given.shape[-2:] if isinstance(side, int)), USUAL_SIDE)
        self._mean, self._deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in normalisation)
        self._signs = signs_of_axes(axes)

    def estimate(self, images: Float[Tensor, "b 3 h w"], steps: int, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        """Unit normals in the camera frame (X right, Y up, Z to the viewer) at the pictures' size; no gradient. steps, generator: unused,
        nothing is sampled."""
        size = (self.image_size, self.image_size)
        sized = functional.interpolate(
            images.detach().cpu().float(), size, mode="bilinear", antialias=True, align_corners=False
        )
        given = (sized - self._mean) / self._deviation
        found = torch.cat([self._one(picture) for picture in given.split(1)])
        raw = found * 2 - 1 if float(found.min()) >= 0 and float(found.max()) <= 1 else found
        normals = functional.interpolate(raw * self._signs, images.shape[-2:], mode="bilinear", align_corners=False)
        return functional.normalize(normals, dim=1, eps=1e-6).to(images)

    def _one(self, picture: Float[Tensor, "1 3 s s"]) -> Float[Tensor, "1 3 s s"]:
        found = torch.from_numpy(np.asarray(self._session.run(None, {self._name: picture.numpy()})[0])).float()
        if math.prod(found.shape) != math.prod(picture.shape):
            raise PriorError(
                f"the normal network gives the shape {list(found.shape)}, not three numbers a pixel: it is another kind"
            )
        return found.reshape(picture.shape)

    def compute_in(
        self, dtype: torch.dtype, *, autoencoder: torch.dtype | None = None, adapter: torch.dtype | None = None
    ) -> None:
        """Nothing: the file says what it computes in."""

    def to(self, device: torch.device | str) -> None:
        """Nothing: it runs on the CPU."""


def is_regressor(source: PriorSource) -> bool:
    """Whether a folder holds such a network."""
    return (source.folder() / FILE).is_file()


def load_regressor(source: PriorSource, axes: str) -> NormalRegressor:
    """Open a folder with model.onnx. PriorError, in one line, where the file or onnxruntime is missing or the file is damaged."""
    path = source.folder() / FILE
    try:
        import onnxruntime
    except ImportError:
        raise PriorError(f"{path} needs onnxruntime, which is not installed; pip install onnxruntime") from None
    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no class
        raise PriorError(f"{path} is no ONNX model that can be opened: {str(error).splitlines()[0]}") from None
    return NormalRegressor(session, _normalisation(source.folder()), axes)


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    said = json_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    return tuple(said.get("image_mean", IMAGENET[0])), tuple(said.get("image_std", IMAGENET[1]))
