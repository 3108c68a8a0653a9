"""Noise schedules and deterministic sampling, in the notation of protocols.py.

z_t = alpha_t z + sigma_t eps, alpha_t^2 = abar_t, sigma_t^2 = 1 - abar_t, v = alpha_t eps - sigma_t z
(source: Salimans and Ho, arXiv:2202.00512). Conversions are exact inverses: z = alpha_t z_t - sigma_t v,
eps = sigma_t z_t + alpha_t v.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Predictor = Callable[[Tensor, Tensor], Tensor]
"""(noisy (B, C, h, w), timesteps (B,)) -> v prediction (B, C, h, w)."""

_LEAST_ALPHA = 1e-4
"""Least alpha_t that an epsilon is divided by: below it an epsilon network says nothing of z."""


@dataclass(frozen=True)
class NoiseSchedule:
    """abar_t for every training timestep. What the network predicts: "epsilon", "v_prediction", or rectified flow's velocity, "flow"."""

    alphas_cumprod: Float[Tensor, " t"]
    prediction_type: str


@dataclass(frozen=True)
class Renewal:
    """Noise drawn anew while sampling. share: DDIM's eta, 0 none, 1 as in ancestral sampling; draw: standard normal latents."""

    share: float
    draw: Callable[[], Tensor]


def alpha_sigma(
    alphas_cumprod: Float[Tensor, " t"], timesteps: Int[Tensor, " b"]
) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    """alpha_t and sigma_t of each timestep, shaped to multiply latents."""
    level = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    return level.sqrt(), (1 - level).sqrt()


def noisy_latents(
    latents: Float[Tensor, "b c m n"],
    noise: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """z_t."""
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
    return alpha * latents + sigma * noise


def velocity(
    latents: Float[Tensor, "b c m n"],
    noise: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """The target v = alpha_t eps - sigma_t z."""
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
    return alpha * noise - sigma * latents


def epsilon_from_v(
    v: Float[Tensor, "b c m n"],
    noisy: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """eps = sigma_t z_t + alpha_t v."""
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
    return sigma * noisy + alpha * v


def v_from_epsilon(
    epsilon: Float[Tensor, "b c m n"],
    noisy: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """v = (eps - sigma_t z_t) / alpha_t; alpha_t is kept above _LEAST_ALPHA, below which an epsilon network says nothing of z."""
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
    return (epsilon - sigma * noisy) / alpha.clamp_min(_LEAST_ALPHA)


def epsilon_from_flow(
    u: Float[Tensor, "b c m n"],
    noisy: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """eps = x_s + (1 - s) u of rectified flow's velocity u = eps - z (source: arXiv:2403.03206, Sec. 2).

    Written in z_t: x_s = z_t / (alpha_t + sigma_t) at s = sigma_t / (alpha_t + sigma_t).
    """
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
    return (noisy + alpha * u) / (alpha + sigma)


def v_from_flow(
    u: Float[Tensor, "b c m n"],
    noisy: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " b"],
) -> Float[Tensor, "b c m n"]:
    """v = alpha_t eps - sigma_t z with eps as in `epsilon_from_flow` and z = x_s - s u; nothing is divided by alpha_t."""
    alpha, sigma = alpha_sigma(alphas_cumprod, timesteps)
    return ((alpha - sigma) * noisy + u) / (alpha + sigma)


def alphas_cumprod_of_flow(shares: Float[Tensor, " t"]) -> Float[Tensor, " t"]:
    """abar_t of noise shares s of rectified flow: x_s divided by the root of (1 - s)^2 + s^2 is z_t."""
    kept = (1 - shares).square()
    return kept / (kept + shares.square())


def bounded_snr_weight(alphas_cumprod: Float[Tensor, " t"], timesteps: Int[Tensor, " b"], gamma: float) -> Float[Tensor, " b"]:
    """min(SNR + 1, gamma) / (SNR + 1), the weight of a squared v error; gamma at least 1.

    In terms of the squared error of z this is min(SNR + 1, gamma): bounded above as in Min-SNR (arXiv:2303.09556), so that all but
    clean latents do not dominate, but 1 at pure noise, where Min-SNR's own weight SNR vanishes and a conditional network would
    hardly learn the layout that its first sampling steps decide.
    """
    level = alphas_cumprod[timesteps]
    snr = level / (1 - level).clamp_min(1e-12)
    return (snr + 1).clamp_max(gamma) / (snr + 1)


def trailing_timesteps(n_train: int, steps: int) -> Int[Tensor, " s"]:
    """Evenly spaced timesteps that start at the noisiest one (source: arXiv:2305.08891, "trailing"). 1 <= steps <= n_train."""
    if not 1 <= steps <= n_train:
        raise ValueError(f"sampling steps must lie in 1..{n_train}, not {steps}")
    return (n_train - torch.arange(steps) * (n_train / steps)).round().long() - 1


def sample_ddim(
    predict_v: Predictor,
    noise: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    steps: int,
    renewal: Renewal | None,
) -> Float[Tensor, "b c m n"]:
    """DDIM from pure noise over trailing timesteps; the last step lands on the predicted z. renewal: as for `denoise_ddim`."""
    return denoise_ddim(
        predict_v=predict_v,
        noisy=noise,
        alphas_cumprod=alphas_cumprod,
        timesteps=trailing_timesteps(len(alphas_cumprod), steps),
        renewal=renewal,
    )


@torch.no_grad()
def denoise_ddim(
    predict_v: Predictor,
    noisy: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    timesteps: Int[Tensor, " s"],
    renewal: Renewal | None,
) -> Float[Tensor, "b c m n"]:
    """DDIM (arXiv:2010.02502, Eq. 12) over falling timesteps, from latents as noisy as the first of them.

    renewal: how much of the noise is drawn anew at each step, or None for the deterministic path. Fresh noise mends the slips of
    a weakly trained network, which the deterministic path carries to its end.
    """
    latents = noisy
    for index, timestep in enumerate(timesteps.to(noisy.device)):
        batch = timestep.expand(len(latents))
        v = predict_v(latents, batch)
        alpha, sigma = alpha_sigma(alphas_cumprod, batch)
        clean, epsilon = alpha * latents - sigma * v, sigma * latents + alpha * v
        if index + 1 == len(timesteps):
            return clean
        alpha_next, sigma_next = alpha_sigma(alphas_cumprod, timesteps[index + 1].to(noisy.device).expand(len(latents)))
        latents = alpha_next * clean + sigma_next * epsilon
        if renewal is not None and renewal.share > 0:
            fresh = renewal.share * sigma_next / sigma * (1 - (alpha / alpha_next).square()).clamp_min(0).sqrt()
            kept = (sigma_next.square() - fresh.square()).clamp_min(0).sqrt()
            latents = alpha_next * clean + kept * epsilon + fresh * renewal.draw()
    return latents


def repainted(
    predict_v: Predictor,
    latents: Float[Tensor, "b c m n"],
    alphas_cumprod: Float[Tensor, " t"],
    strength: float,
    steps: int,
    renewed: float,
    generator: torch.Generator,
) -> Float[Tensor, "b c m n"]:
    """Latents noised up to the fraction `strength` of the timesteps, then denoised by DDIM of eta `renewed`; at 1 they no longer matter.

    source of the idea: SDEdit (arXiv:2108.01073).
    """
    n_noisy = max(1, round(strength * len(alphas_cumprod)))
    timesteps = trailing_timesteps(n_noisy, min(steps, n_noisy)).to(alphas_cumprod.device)

    def drawn() -> Tensor:
        return torch.randn(latents.shape, generator=generator, device=generator.device).to(alphas_cumprod.device)

    noise = drawn()
    noisy = noise if strength >= 1 else noisy_latents(latents, noise, alphas_cumprod, timesteps[:1].expand(len(latents)))
    return denoise_ddim(
        predict_v=predict_v,
        noisy=noisy,
        alphas_cumprod=alphas_cumprod,
        timesteps=timesteps,
        renewal=Renewal(renewed, drawn),
    )


def guided(
    conditional: Float[Tensor, "b c m n"], unconditional: Float[Tensor, "b c m n"], guidance_scale: float
) -> Float[Tensor, "b c m n"]:
    """Classifier-free guidance u + s (c - u): 1 is the condition alone, 0 the unconditional one (arXiv:2207.12598)."""
    return unconditional + guidance_scale * (conditional - unconditional)
