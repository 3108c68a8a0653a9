"""SDXL, Stable Diffusion 3 and FLUX.1 on real classes made tiny: equal to their pipelines in diffusers, in the notation of all priors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
)

from dreampolish.priors.distillation.scores import add_noise, score_loss
from dreampolish.priors.distillation.weights import sds_weights
from dreampolish.priors.folders.contents import contents_of
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.sampling import alpha_sigma
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.text.networks import packed, token_places, unpacked
from dreampolish.priors.text.prior import DiffusionTextPrior
from tests.support.flow_folders import rewritten_config, write_flux, write_sd3, write_sdxl

PROMPTS = ["a chair, front view", "a table"]
WRITERS: dict[str, Callable[[Path], Path]] = {
    "sdxl": write_sdxl,
    "sd3": write_sd3,
    "sd3-without-t5": lambda folder: write_sd3(folder, with_t5=False, qk_norm=None),
    "schnell": write_flux,
    "dev": lambda folder: write_flux(folder, dev=True),
}
FLOWS = [name for name in WRITERS if name != "sdxl"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each family."""
    place = tmp_path_factory.mktemp("families")
    return {name: write(place / name) for name, write in WRITERS.items()}


def _prior(folder: Path) -> DiffusionTextPrior:
    return load_text_prior(PriorSource(str(folder), None), 64)


def _latents(prior: DiffusionTextPrior, n: int, seed: int) -> torch.Tensor:
    return prior.draw_noise(n, torch.Generator().manual_seed(seed))


def _pipeline(kind: Any, folder: Path, **missing: None) -> Any:
    return kind.from_pretrained(folder, local_files_only=True, **missing)


def test_sdxl_embeds_and_predicts_as_its_pipeline(folders: dict[str, Path]) -> None:
    prior, pipeline = _prior(folders["sdxl"]), _pipeline(StableDiffusionXLPipeline, folders["sdxl"])
    text = prior.embed([*PROMPTS, ""])
    states, empty, pooled, empty_pooled = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=True)
    assert torch.allclose(text.states, torch.cat([states, empty[:1]]), atol=1e-5)
    assert torch.allclose(text.pooled_states(), torch.cat([pooled, empty_pooled[:1]]), atol=1e-5)
    assert not text.states[2].any()
    noisy, timesteps = _latents(prior, 2, 0), torch.tensor([40, 900])
    sizes = pipeline._get_add_time_ids((64, 64), (0, 0), (64, 64), torch.float32, pooled.shape[-1]).expand(2, -1)
    conditions = {"text_embeds": pooled, "time_ids": sizes}
    with torch.no_grad():
        expected = pipeline.unet(noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=conditions).sample
    found = prior.predict_epsilon(noisy, timesteps, text.rows([0, 1]))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_models_embed_as_their_pipelines(folders: dict[str, Path], name: str) -> None:
    text = _prior(folders[name]).embed(PROMPTS)
    if name.startswith("sd3"):
        missing = {} if name == "sd3" else dict.fromkeys(("text_encoder_3", "tokenizer_3"))
        pipeline = _pipeline(StableDiffusion3Pipeline, folders[name], **missing)
        states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    else:
        states, pooled, _ = _pipeline(FluxPipeline, folders[name]).encode_prompt(PROMPTS, None)
    assert torch.allclose(text.states, states, atol=1e-5)
    assert torch.allclose(text.pooled_states(), pooled, atol=1e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_sampling_walks_the_path_of_diffusers_own_euler_steps(folders: dict[str, Path], name: str) -> None:
    """DDIM without renewal in z_t is Euler in x_s: the same latents at the same noise shares."""
    prior = _prior(folders[name])
    text, noise = prior.embed(PROMPTS), _latents(prior, 2, 1)
    steps = 4
    n = len(prior.alphas_cumprod)
    timesteps = (n - torch.arange(steps) * (n / steps)).round().long() - 1
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, timesteps)
    shares = [*(sigma / (alpha + sigma)).flatten().tolist(), 0.0]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=shares[:-1])
    latents = noise
    for share, timestep in zip(shares[:-1], scheduler.timesteps, strict=True):
        with torch.no_grad():
            u = prior.network.velocity(prior.network.module, latents, torch.full((2,), share), text)  # type: ignore[attr-defined]
        latents = scheduler.step(u, timestep, latents).prev_sample
    expected = prior.decode(latents)
    generator = torch.Generator().manual_seed(1)
    drawn = prior.sample(text, prior.embed(["", ""]), guidance_scale=1.0, steps=steps, renewed=0.0, generator=generator)
    assert torch.allclose(drawn, expected, atol=1e-4)


def test_the_shares_are_those_of_the_schedulers(folders: dict[str, Path]) -> None:
    for name, shift in (("sd3", 3.0), ("schnell", 1.0)):
        schedule = FlowMatchEulerDiscreteScheduler(shift=shift)
        alpha, sigma = alpha_sigma(_prior(folders[name]).alphas_cumprod, torch.arange(1000))
        assert torch.allclose((sigma / (alpha + sigma)).flatten()[1:], schedule.sigmas.flip(0)[1:], atol=2e-4)
    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (16 - 256)
    wanted = dynamic.time_shift(mu, 1.0, torch.tensor([0.25, 0.5, 0.75]))
    alpha, sigma = alpha_sigma(_prior(folders["dev"]).alphas_cumprod, torch.tensor([249, 499, 749]))
    assert torch.allclose((sigma / (alpha + sigma)).flatten(), wanted, atol=1e-5)


@pytest.mark.parametrize("name", FLOWS)
def test_velocities_convert_to_epsilon_and_v_and_back(folders: dict[str, Path], name: str) -> None:
    prior = _prior(folders[name])
    clean, noise, timesteps = _latents(prior, 3, 2), _latents(prior, 3, 3), torch.tensor([20, 500, 999])
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, timesteps)
    noisy, u = alpha * clean + sigma * noise, noise - clean
    assert torch.allclose(prior.epsilon_from_output(u, noisy, timesteps), noise, atol=1e-4)
    assert torch.allclose(prior.v_from_output(u, noisy, timesteps), alpha * noise - sigma * clean, atol=1e-4)


@pytest.mark.parametrize("name", list(WRITERS))
def test_an_exact_prediction_moves_nothing(folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SDS of a network that says what was added: the gradient at the latents is 0."""
    prior, weights = _prior(folders[name]), sds_weights(7.5)
    latents = prior.encode(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))).requires_grad_()
    noised = add_noise(latents, torch.tensor([100, 700]), prior.alphas_cumprod, torch.Generator().manual_seed(5))
    is_flow = prior.schedule.prediction_type == "flow"
    exact = noised.noise - latents.detach() if is_flow else noised.noise
    monkeypatch.setattr(prior.network, "output", lambda *given: exact)
    e_y = prior.predict_epsilon(noised.noisy, noised.timesteps, prior.embed(PROMPTS))
    e_0 = prior.predict_epsilon(noised.noisy, noised.timesteps, prior.embed(["", ""]))
    delta = weights.prompt * e_y + weights.empty * e_0 + weights.noise * noised.noise
    score_loss(noised, delta, prior.alphas_cumprod).backward()
    assert latents.grad is not None
    assert latents.grad.abs().max() < 1e-4


def test_latents_are_shifted_and_scaled_as_the_autoencoder_says(folders: dict[str, Path]) -> None:
    prior = _prior(folders["sd3"])
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    raw = prior.autoencoder.encode(picture * 2 - 1).latent_dist.mode()
    assert torch.allclose(prior.encode(picture), (raw - 0.0609) * 1.5305, atol=1e-6)
    decoded = (prior.autoencoder.decode(raw).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(prior.decode(prior.encode(picture)), decoded, atol=1e-5)


@pytest.mark.parametrize("name", list(WRITERS))
def test_an_adapter_begins_as_the_network_and_learns_with_the_camera(folders: dict[str, Path], name: str) -> None:
    prior = _prior(folders[name])
    noisy, timesteps, text = _latents(prior, 2, 7), torch.tensor([300, 300]), prior.embed(PROMPTS)
    before = prior.predict_epsilon(noisy, timesteps, text)
    domain = prior.add_lora(2, torch.Generator().manual_seed(8))
    cameras = torch.eye(4).expand(2, 4, 4) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
    assert torch.allclose(domain.predict_epsilon(noisy, timesteps, text, cameras), before, atol=1e-5)
    target = before + 0.3
    optimizer = torch.optim.Adam(domain.parameters(), lr=2e-2)
    errors = []
    for _ in range(15):
        error = (domain.predict_epsilon(noisy, timesteps, text, cameras) - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.9 * errors[0]
    blind = domain.predict_epsilon(noisy, timesteps, text, None)
    assert not torch.allclose(blind, domain.predict_epsilon(noisy, timesteps, text, cameras))
    assert torch.equal(prior.predict_epsilon(noisy, timesteps, text), before)


def test_words_and_pooled_text_are_mixed_and_joined_alike(folders: dict[str, Path]) -> None:
    prior = _prior(folders["sd3"])
    first, second = prior.embed(["a chair"]), prior.embed(["a table"])
    half = first.mixed(second, torch.tensor([0.25]))
    assert torch.allclose(half.pooled_states(), 0.25 * first.pooled_states() + 0.75 * second.pooled_states(), atol=1e-6)
    joined = type(first).joined([first, second])
    assert torch.equal(joined.pooled_states(), torch.cat([first.pooled_states(), second.pooled_states()]))
    assert joined.rows([1]).expand(3).pooled_states().shape[0] == 3


def test_tokens_are_packed_row_by_row() -> None:
    latents = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    expected = FluxPipeline._pack_latents(latents, 2, 3, 4, 6)
    assert torch.equal(packed(latents), expected)
    assert torch.equal(unpacked(expected, (4, 6)), latents)
    assert torch.equal(token_places(2, 3), FluxPipeline._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32))


def test_contents_name_the_family(folders: dict[str, Path]) -> None:
    found = {name: contents_of(PriorSource(str(folder), None)) for name, folder in folders.items()}
    assert {each.role for each in found.values()} == {"text"}
    assert [found[name].family for name in ("sdxl", "sd3", "dev")] == ["SDXL class", "Stable Diffusion 3 class", "FLUX.1 class"]
    assert set(found["sd3"].parameters) == {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"}
    assert set(found["sd3-without-t5"].parameters) == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    assert found["schnell"].image_size == 1024
    assert found["sd3"].prediction == "rectified flow"


@pytest.mark.parametrize(
    ("changed", "change", "said"),
    [
        ("transformer/config.json", {"_class_name": "PixArtTransformer2DModel"}, "PixArtTransformer2DModel"),
        ("transformer/config.json", {"in_channels": 384, "out_channels": 64}, "text-to-image"),
        ("transformer/config.json", {"num_layers": 3}, "transformer lacks"),
        ("scheduler/scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_what_is_no_such_model_is_refused_by_name(tmp_path: Path, changed: str, change: dict[str, Any], said: str) -> None:
    folder = write_flux(tmp_path / "flux")
    rewritten_config(folder / changed, **change)
    for load in (contents_of, load_text_prior):
        with pytest.raises(PriorError, match=said) as refused:
            load(PriorSource(str(folder), None))
        assert "\n" not in str(refused.value)
