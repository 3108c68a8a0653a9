"""Cutting an object from any background by a matting network (ISNet or BiRefNet class) in an ONNX file.

Optional: without one, only plain backgrounds are cut (opaque.py). Source of the conventions: rembg's sessions for isnet-general-use and
BiRefNet: a square picture, normalised, gives one map of coverage, stretched to 0..1.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from dreampolish.scene.pictures import PictureError

FILE, SETTINGS = "model.onnx", "preprocessor_config.json"
USUAL_SIDE = 1024
"""Pixels of a side where the file leaves it open; both networks were trained at it."""
ISNET = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""(means, deviations) of red, green and blue, as the two networks' pictures are normalised."""
OPAQUE = 0.95
"""Coverage from which a pixel's colour is the object's own. [choice]"""


class Matting:
    """A matting network. PictureError, in one line, where it or onnxruntime is not there."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        if not path.is_file() and any(folder.glob("*.safetensors")):
            raise PictureError(
                f"{folder} holds safetensors and no {FILE}: no library here builds ISNet or BiRefNet without code of the folder's own; "
                f"take the ONNX file of its repository, or write one where the network runs, torch.onnx.export(network, picture, '{FILE}')"
            )
        if not path.is_file():
            raise PictureError(f"no matting model: {path} is not there; put ISNet's or BiRefNet's ONNX file in its place")
        try:
            import onnxruntime
        except ImportError:
            raise PictureError("a matting model needs onnxruntime, which is not installed; pip install onnxruntime") from None
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class
            raise PictureError(f"{path} is no ONNX model that can be opened: {str(error).splitlines()[0]}") from None
        given = self._session.get_inputs()[0]
        self._name = given.name
        self._side = next((int(side) for side in given.shape[-2:] if isinstance(side, int)), USUAL_SIDE)
        self._mean, self._deviation = (np.array(each, dtype=np.float32)[:, None, None] for each in _normalisation(folder))

    def cut(self, rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 4"]:
        """RGBA of a picture in [0, 1]. Pixels that the object only partly covers get the colour of its nearest opaque one."""
        size = (self._side, self._side)
        picture = rgb.permute(2, 0, 1)[None].float()
        sized = torch.nn.functional.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
        given = (sized.numpy() - self._mean) / self._deviation
        found = torch.from_numpy(np.asarray(self._session.run(None, {self._name: given.astype(np.float32)})[0])).float()
        coverage = _stretched(found.reshape(1, -1, *size)[:, :1])
        alpha = torch.nn.functional.interpolate(coverage, rgb.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        return torch.cat([_own_colors(rgb, alpha), alpha[..., None]], dim=-1)


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the folder's preprocessor_config.json; without one, ISNet's where the folder is called so, else ImageNet's."""
    path = folder / SETTINGS
    said = json.loads(path.read_text()) if path.is_file() else {}
    known = ISNET if "isnet" in folder.name.lower() else IMAGENET
    return tuple(said.get("image_mean", known[0])), tuple(said.get("image_std", known[1]))


def _stretched(found: Tensor) -> Tensor:
    """Coverage in 0..1 of a network's output, which may be logits; even ones stay as they are."""
    if float(found.min()) < 0 or float(found.max()) > 1:
        found = found.sigmoid()
    low, high = found.min(), found.max()
    return (found - low) / (high - low) if float(high - low) > 1e-3 else found


def _own_colors(rgb: Float[Tensor, "h w 3"], alpha: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    opaque = alpha.numpy() >= OPAQUE
    if not opaque.any():
        return rgb
    rows, columns = ndimage.distance_transform_edt(~opaque, return_distances=False, return_indices=True)
    return rgb[torch.from_numpy(rows), torch.from_numpy(columns)]
