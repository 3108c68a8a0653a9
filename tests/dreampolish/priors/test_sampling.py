"""Noise algebra and DDIM against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreampolish.priors import sampling as N
from dreampolish.training.diffusion import build_schedule, stratified_timesteps

ALPHAS = build_schedule().alphas_cumprod.double()


def _draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 999), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_v_and_epsilon_convert_into_each_other(timestep: int, seed: int) -> None:
    latents, eps = _draw(seed, 2, 3, 4, 4), _draw(seed + 1, 2, 3, 4, 4)
    t = torch.tensor([timestep, 999 - timestep])
    noisy = N.noisy_latents(latents, eps, ALPHAS, t)
    v = N.velocity(latents, eps, ALPHAS, t)
    assert torch.allclose(N.epsilon_from_v(v, noisy, ALPHAS, t), eps, atol=1e-12)
    alpha, sigma = N.alpha_sigma(ALPHAS, t)
    assert torch.allclose(alpha * noisy - sigma * v, latents, atol=1e-12)


def test_v_from_epsilon_is_the_inverse_where_the_signal_is_seen() -> None:
    latents, eps, t = _draw(0, 2, 3, 4, 4), _draw(1, 2, 3, 4, 4), torch.tensor([10, 900])
    noisy, v = N.noisy_latents(latents, eps, ALPHAS, t), N.velocity(latents, eps, ALPHAS, t)
    assert torch.allclose(N.v_from_epsilon(eps, noisy, ALPHAS, t), v, atol=1e-10)


def test_the_schedule_ends_in_all_but_pure_noise_and_never_rises() -> None:
    assert ALPHAS[0] > 0.999
    assert ALPHAS[-1] < 1e-6
    assert bool((ALPHAS.diff() < 0).all())


def test_trailing_timesteps_start_at_the_noisiest() -> None:
    assert N.trailing_timesteps(1000, 4).tolist() == [999, 749, 499, 249]
    assert N.trailing_timesteps(1000, 1).tolist() == [999]
    assert N.trailing_timesteps(10, 10).tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("steps", [0, 11])
def test_impossible_numbers_of_sampling_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"not {steps}"):
        N.trailing_timesteps(10, steps)


def test_ddim_recovers_a_known_latent_from_a_perfect_network() -> None:
    """For one possible clean latent the exact eps is (z_t - alpha z) / sigma: any number of steps must end at z."""
    clean = _draw(3, 1, 2, 4, 4).float()
    alphas = ALPHAS.float()

    def perfect(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = N.alpha_sigma(alphas, t)
        return alpha * (noisy - alpha * clean) / sigma - sigma * clean

    for steps in (1, 3, 20):
        found = N.sample_ddim(perfect, _draw(4, 2, 2, 4, 4).float(), alphas, steps, None)
        assert torch.allclose(found, clean.expand(2, -1, -1, -1), atol=1e-4)


def test_ddim_of_a_gaussian_keeps_its_spread() -> None:
    """For z ~ N(0, s^2) the exact posterior mean is linear, and the probability flow maps N(0, 1) onto N(0, s^2)."""
    spread, alphas = 0.5, ALPHAS.float()

    def perfect(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = N.alpha_sigma(alphas, t)
        clean = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * noisy
        return alpha * (noisy - alpha * clean) / sigma - sigma * clean

    noise = _draw(5, 4, 1, 8, 8).float()
    found = N.sample_ddim(perfect, noise, alphas, 200, None)
    assert torch.allclose(found, spread * noise, atol=0.02)


def test_fresh_noise_keeps_the_distribution_but_not_the_path() -> None:
    """The same Gaussian, sampled ancestrally: the spread is right, and the start no longer decides the end."""
    spread, alphas, generator = 0.5, ALPHAS.float(), torch.Generator().manual_seed(8)

    def perfect(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = N.alpha_sigma(alphas, t)
        clean = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2) * noisy
        return alpha * (noisy - alpha * clean) / sigma - sigma * clean

    noise = _draw(5, 4, 1, 32, 32).float()
    renewal = N.Renewal(1.0, lambda: torch.randn(noise.shape, generator=generator))
    found = N.sample_ddim(perfect, noise, alphas, 200, renewal)
    assert abs(float(found.std()) - spread) < 0.03
    assert abs(float((found * noise).mean())) < 0.1 * spread


def test_guidance_at_one_is_the_condition_and_at_zero_the_unconditional() -> None:
    c, u = _draw(6, 1, 2, 2, 2), _draw(7, 1, 2, 2, 2)
    assert torch.allclose(N.guided(c, u, 1.0), c)
    assert torch.equal(N.guided(c, u, 0.0), u)
    assert torch.allclose(N.guided(c, u, 3.0), 3 * c - 2 * u)


def test_the_losss_weight_equals_its_closed_form_at_known_levels() -> None:
    levels = torch.tensor([0.9, 0.5, 0.1])  # SNR + 1 = 10, 2, 10/9
    weights = N.bounded_snr_weight(levels, torch.arange(3), 5.0)
    assert torch.allclose(weights, torch.tensor([5 / 10, 1.0, 1.0]), atol=1e-6)


def test_stratified_timesteps_hit_every_part_once() -> None:
    t = stratified_timesteps(10, 1000, 1.0, torch.Generator().manual_seed(0))
    assert sorted((t // 100).tolist()) == list(range(10))
    shifted = stratified_timesteps(1000, 1000, 0.5, torch.Generator().manual_seed(0))
    assert abs(shifted.float().mean() - 1000 * 2 / 3) < 2  # the mean of sqrt(u) is 2/3
