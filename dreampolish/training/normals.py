"""Training of the normal prior: a picture's latent beside the noisy latent of its normal picture."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.estimators.normals import normals_output, pictures_from_normals
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.training.diffusion import Denoiser, DenoiserBatch

NormalSource = Callable[
    [int, torch.Generator], tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"], Float[Tensor, "n 1 h w"]]
]
"""(how many, generator) -> pictures in [0, 1], unit camera-frame normals, mask."""


class NormalBatches:
    """Draws training batches of the normal prior."""

    def __init__(self, draw: NormalSource, space: LatentSpace, batch: int) -> None:
        self._draw, self._space, self._batch = draw, space, batch

    @torch.no_grad()
    def __call__(self, generator: torch.Generator) -> DenoiserBatch:
        """Latents of normal pictures, and of the pictures that show them."""
        pictures, normals, mask = self._draw(self._batch, generator)
        latents = self._space.encode(pictures_from_normals(normals, mask))
        return DenoiserBatch(latents, {"image_latents": self._space.encode(pictures)})


def normals_denoiser(unet: UNet2DConditionModel, empty_text: TextEmbedding) -> Denoiser:
    """The network as a function of what NormalBatches tells, under the empty text."""

    def denoise(noisy: Tensor, timesteps: Tensor, told: dict[str, Any]) -> Tensor:
        return normals_output(
            unet=unet, noisy=noisy, timesteps=timesteps, image_latents=told["image_latents"], text=empty_text.expand(len(noisy))
        )

    return denoise
