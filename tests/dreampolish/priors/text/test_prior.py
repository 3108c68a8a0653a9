"""The text prior and its variational domain on a tiny real U-Net."""

import pytest
import torch

from dreampolish.priors.folders.loading import unet_output
from dreampolish.priors.sampling import epsilon_from_v, sample_ddim
from dreampolish.priors.text.networks import UnetNetwork
from dreampolish.priors.text.prior import DiffusionTextPrior
from tests.support.tiny_priors import CHANNELS, CountingTower, tiny_space, tiny_unet


@pytest.fixture
def prior() -> DiffusionTextPrior:
    return DiffusionTextPrior(tiny_space(), UnetNetwork(tiny_unet(CHANNELS, False)), CountingTower())


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noisy(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, CHANNELS, 4, 4, generator=_generator(5)), torch.arange(n) * 300 + 50


def test_epsilon_is_the_networks_v_converted(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(3)
    text = prior.embed(["a red chair", "a chair", ""])
    with torch.no_grad():
        v = unet_output(prior.network.module, noisy, timesteps, text)
    expected = epsilon_from_v(v, noisy, prior.alphas_cumprod, timesteps)
    assert torch.equal(prior.predict_epsilon(noisy, timesteps, text), expected)


def test_padding_does_not_change_a_prediction(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(1)
    alone = prior.predict_epsilon(noisy, timesteps, prior.embed(["a chair"]))
    together = prior.embed(["a chair", "a very long caption of a chair"])
    padded = prior.predict_epsilon(noisy.expand(2, -1, -1, -1), timesteps.expand(2), together)[:1]
    assert torch.allclose(alone, padded, atol=1e-5)


def test_the_text_matters(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(1)
    one, other = (prior.predict_epsilon(noisy, timesteps, prior.embed([p])) for p in ("a chair", "a red table"))
    assert (one - other).abs().max() > 1e-4


def test_predictions_carry_no_graph_but_encoding_does(prior: DiffusionTextPrior) -> None:
    image = torch.rand(1, 3, 8, 8, generator=_generator(0)).requires_grad_()
    latents = prior.encode(image)
    epsilon = prior.predict_epsilon(latents, torch.tensor([500]), prior.embed([""]))
    assert not epsilon.requires_grad
    latents.square().sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_pictures_of_another_size_are_resized(prior: DiffusionTextPrior) -> None:
    image = torch.rand(1, 3, 8, 8, generator=_generator(0)).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert prior.encode(image).shape == (1, CHANNELS, 4, 4)
    flat = torch.full((1, 3, 20, 20), 0.3)
    assert torch.allclose(prior.encode(flat), prior.encode(torch.full((1, 3, 8, 8), 0.3)), atol=1e-5)


def test_guidance_of_one_samples_the_condition_alone(prior: DiffusionTextPrior) -> None:
    text, empty = prior.embed(["a red chair", "a table"]), prior.embed([""])

    def conditional(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return unet_output(prior.network.module, noisy, timesteps, text)

    noise = prior.draw_noise(2, _generator(1))
    expected = prior.decode(sample_ddim(conditional, noise, prior.alphas_cumprod, 4, None))
    assert torch.allclose(prior.sample(text, empty, 1.0, 4, 0.0, _generator(1)), expected, atol=1e-4)


def test_the_same_generator_gives_the_same_pictures(prior: DiffusionTextPrior) -> None:
    text, empty = prior.embed(["a red chair"]), prior.embed([""])
    one, two, other = (prior.sample(text, empty, 3.0, 3, 1.0, _generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1


def test_with_the_adapter_off_the_network_is_bit_identical(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a chair", "a table"])
    before = prior.predict_epsilon(noisy, timesteps, text)
    domain = prior.add_lora(2, _generator(3))
    for parameter in domain.parameters():
        torch.nn.init.normal_(parameter, generator=_generator(4))
    assert not torch.equal(domain.predict_epsilon(noisy, timesteps, text, None), before)
    assert torch.equal(prior.predict_epsilon(noisy, timesteps, text), before)


def test_a_fresh_domain_predicts_what_the_network_does(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a chair", "a table"])
    before = prior.predict_epsilon(noisy, timesteps, text)
    fresh = prior.add_lora(2, _generator(3)).predict_epsilon(noisy, timesteps, text, torch.eye(4).expand(2, 4, 4))
    assert torch.allclose(fresh, before, atol=1e-6)


def test_the_adapter_learns_and_the_base_does_not(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a chair", "a table"])
    cameras = torch.eye(4).expand(2, 4, 4) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
    target = prior.predict_epsilon(noisy, timesteps, text) + 0.5 * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    before = prior.predict_epsilon(noisy, timesteps, text)
    domain = prior.add_lora(2, _generator(3))
    optimizer = torch.optim.Adam(domain.parameters(), lr=3e-2)
    errors = []
    for _ in range(80):
        error = (domain.predict_epsilon(noisy, timesteps, text, cameras) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.85 * errors[0]
    assert torch.equal(prior.predict_epsilon(noisy, timesteps, text), before)
    gone = domain.predict_epsilon(noisy, timesteps, text, None)
    assert not torch.allclose(gone, domain.predict_epsilon(noisy, timesteps, text, cameras))


def test_the_factors_of_the_adapter_learn(prior: DiffusionTextPrior) -> None:
    """Not the camera's embedding alone: switching the adapter off after a prediction must not take its way back."""
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a chair", "a table"])
    domain = prior.add_lora(2, _generator(3))
    factors = {name: value for name, value in domain.state_dict().items() if "lora_" in name}
    before = {name: value.clone() for name, value in factors.items()}
    optimizer = torch.optim.Adam(domain.parameters(), lr=1e-2)
    for _ in range(2):  # the first step moves the second factors, which are zero, and only then the first ones get a gradient
        optimizer.zero_grad()
        domain.predict_epsilon(noisy, timesteps, text, None).square().mean().backward()
        optimizer.step()
    assert factors
    assert all(bool((value != before[name]).any()) for name, value in factors.items())


def test_an_adapters_state_makes_another_one_equal(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(1)
    text = prior.embed(["a chair"])
    domain = prior.add_lora(2, _generator(3))
    for parameter in domain.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=_generator(4))
    state = {name: value.clone() for name, value in domain.state_dict().items()}
    expected = domain.predict_epsilon(noisy, timesteps, text, None).detach()
    again = prior.add_lora(2, _generator(9))
    assert not torch.allclose(again.predict_epsilon(noisy, timesteps, text, None), expected)
    again.load_state_dict(state)
    assert torch.equal(again.predict_epsilon(noisy, timesteps, text, None), expected)
    state.pop(next(iter(state)))
    with pytest.raises(KeyError):
        again.load_state_dict(state)


def test_making_an_adapter_leaves_the_global_generator_alone_and_follows_its_own(prior: DiffusionTextPrior) -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    first = {k: v.clone() for k, v in prior.add_lora(2, _generator(3)).state_dict().items()}
    assert torch.equal(torch.rand(1), expected)
    second = prior.add_lora(2, _generator(3)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_rank_below_one_is_refused(prior: DiffusionTextPrior) -> None:
    with pytest.raises(ValueError, match="rank 0"):
        prior.add_lora(0, _generator(0))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
def test_in_half_precision_predictions_stay_close_and_float32(
    prior: DiffusionTextPrior, dtype: torch.dtype, tolerance: float
) -> None:
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a red chair", "a table"])
    image = torch.rand(1, 3, 8, 8, generator=_generator(0)).requires_grad_()
    exact, latents = prior.predict_epsilon(noisy, timesteps, text), prior.encode(image).detach()
    prior.compute_in(dtype)
    assert {each.dtype for each in prior.network.module.parameters()} == {dtype}
    found = prior.predict_epsilon(noisy, timesteps, text)
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).abs().max()) < tolerance * float(exact.abs().max())
    encoded = prior.encode(image)
    assert encoded.dtype == torch.float32
    assert torch.allclose(encoded, latents, atol=tolerance * float(latents.abs().max()))
    encoded.sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert prior.sample(text, prior.embed([""]), 2.0, 2, 0.0, _generator(1)).dtype == torch.float32


def test_in_half_precision_the_adapter_learns_in_float32(prior: DiffusionTextPrior) -> None:
    prior.compute_in(torch.bfloat16)
    domain = prior.add_lora(2, _generator(0))
    assert {each.dtype for each in domain.parameters()} == {torch.float32}
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a red chair", "a table"])
    fresh = domain.predict_epsilon(noisy, timesteps, text, torch.eye(4).expand(2, 4, 4))
    assert torch.allclose(fresh, prior.predict_epsilon(noisy, timesteps, text), atol=1e-6)
    optimizer = torch.optim.AdamW(domain.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = domain.predict_epsilon(noisy, timesteps, text, torch.eye(4).expand(2, 4, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_another_format_under_the_adapter_leaves_the_frozen_network_alone(prior: DiffusionTextPrior) -> None:
    noisy, timesteps = _noisy(2)
    text = prior.embed(["a red chair", "a table"])
    exact = prior.predict_epsilon(noisy, timesteps, text)
    prior.compute_in(torch.float32, adapter=torch.bfloat16)
    domain = prior.add_lora(2, _generator(0))
    assert domain.number_format == torch.bfloat16
    assert torch.equal(prior.predict_epsilon(noisy, timesteps, text), exact)
    assert {each.dtype for each in prior.network.module.parameters()} == {torch.float32}
    fresh = domain.predict_epsilon(noisy, timesteps, text, torch.eye(4).expand(2, 4, 4))
    assert 0 < float((fresh - exact).abs().max()) < 6e-2 * float(exact.abs().max())


def test_an_autoencoder_that_overflows_in_halves_stays_whole(prior: DiffusionTextPrior) -> None:
    prior.autoencoder.register_to_config(force_upcast=True)
    prior.compute_in(torch.float16)
    assert prior.autoencoder.dtype == torch.float32
    prior.compute_in(torch.bfloat16)
    assert prior.autoencoder.dtype == torch.bfloat16
    prior.compute_in(torch.float32, autoencoder=torch.bfloat16)
    assert (prior.autoencoder.dtype, prior.network.module.dtype) == (torch.bfloat16, torch.float32)
