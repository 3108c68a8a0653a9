"""Painting over latents of several views: noise up to a share of the timesteps, then DDIM."""

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.sampling import Predictor, Renewal, denoise_ddim, noisy_latents, trailing_timesteps


def repainted(
    space: LatentSpace,
    latents: Float[Tensor, "b c m n"],
    predict_v: Predictor,
    strength: float,
    steps: int,
    renewed: float,
    generator: torch.Generator,
) -> Float[Tensor, "b c m n"]:
    """Latents painted over; strength in [0, 1], at 1 they no longer matter. renewed: DDIM's eta.

    source of the idea: SDEdit (arXiv:2108.01073).
    """
    alphas_cumprod = space.alphas_cumprod
    n_noisy = max(1, round(strength * len(alphas_cumprod)))
    timesteps = trailing_timesteps(n_noisy, min(steps, n_noisy)).to(alphas_cumprod.device)

    def drawn() -> Tensor:
        noise = torch.randn(latents.shape, generator=generator, device=generator.device)
        return noise.to(alphas_cumprod.device)

    noise = drawn()
    noisy = noise if strength >= 1 else noisy_latents(latents, noise, alphas_cumprod, timesteps[:1].expand(len(latents)))
    return denoise_ddim(
        predict_v=predict_v,
        noisy=noisy,
        alphas_cumprod=alphas_cumprod,
        timesteps=timesteps,
        renewal=Renewal(renewed, drawn),
    )
