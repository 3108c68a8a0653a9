"""Training of the view prior: reference, target and pose; a tenth of the references dropped for guidance."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.view import ContextEncoder, PoseProjection, view_output
from dreampolish.training.diffusion import Denoiser, DenoiserBatch, normal_noise

PairSource = Callable[[int, torch.Generator], tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"], Float[Tensor, "n 4"]]]
"""(how many, generator) -> references and targets in [0, 1], poses."""

REFERENCE_NOISE = 0.25
"""Largest standard deviation of the noise on a reference's latent, uniform from 0: drawn references are less clean. [choice]"""


class ViewBatches:
    """Draws training batches of the view prior. unconditional: the share of references whose latent and tokens become zero."""

    def __init__(self, draw: PairSource, space: LatentSpace, context: ContextEncoder, batch: int, unconditional: float) -> None:
        self._draw, self._space, self._context = draw, space, context
        self._batch, self._unconditional = batch, unconditional

    @torch.no_grad()
    def __call__(self, generator: torch.Generator) -> DenoiserBatch:
        """Target latents; reference latents, context tokens and poses."""
        references, targets, pose = self._draw(self._batch, generator)
        latents = self._space.encode(torch.cat([references, targets]))
        reference_latents, target_latents = latents.chunk(2)
        spread = REFERENCE_NOISE * torch.rand(self._batch, 1, 1, 1, generator=generator)
        reference_latents = reference_latents + spread.to(latents.device) * normal_noise(reference_latents, generator)
        kept = (torch.rand(self._batch, generator=generator) >= self._unconditional).float().to(latents.device)
        tokens = self._context(references, reference_latents) * kept[:, None, None]
        reference_latents = reference_latents * kept[:, None, None, None]
        return DenoiserBatch(target_latents, {"latents": reference_latents, "tokens": tokens, "pose": pose.to(latents.device)})


def view_denoiser(unet: UNet2DConditionModel, projection: PoseProjection) -> Denoiser:
    """The network and the pose projection as a function of what ViewBatches tells."""

    def denoise(noisy: Tensor, timesteps: Tensor, told: dict[str, Any]) -> Tensor:
        return view_output(
            unet=unet,
            projection=projection,
            noisy=noisy,
            timesteps=timesteps,
            reference_latents=told["latents"],
            tokens=told["tokens"],
            pose=told["pose"],
        )

    return denoise
