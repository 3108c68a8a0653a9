"""Less memory, the same result: parts, checkpoints and towers that go, against everything at once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreampolish.priors.distillation.guidance import PromptEmbeddings, text_guidance, view_guidance
from dreampolish.priors.distillation.scores import variational_losses
from dreampolish.priors.distillation.weights import sds_weights
from dreampolish.priors.estimators.normals import load_normal_prior
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.latents import ALL_AT_ONCE, LatentSpace, MemoryUse
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.text.prior import DiffusionTextPrior
from dreampolish.priors.view import load_view_prior
from dreampolish.scene.cameras import turntable_cameras
from tests.support.hub_folders import write_marigold, write_stable_diffusion, write_zero123

FRUGAL = MemoryUse(views_at_once=2, rows_at_once=3, checkpoint_encoder=True, checkpoint_adapter=True, towers_on_cpu=True)
N = 5
"""Pictures: no multiple of the parts."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub = tmp_path_factory.mktemp("hub")
    write_stable_diffusion(hub / "text")
    write_zero123(hub / "view")
    write_marigold(hub / "normals")
    return hub


def assert_close(one: Tensor, other: Tensor) -> None:
    """Equal up to rounding: one part in a thousand of their length."""
    assert float((one - other).float().norm()) <= 1e-3 * float(one.float().norm())


def spending(prior: LatentSpace, memory: MemoryUse) -> None:
    prior.spend(memory)
    if not memory.checkpoint_encoder:
        prior.autoencoder.disable_gradient_checkpointing()


def pictures() -> Tensor:
    return torch.rand(N, 32, 32, 3, generator=torch.Generator().manual_seed(5)).requires_grad_(True)


def texts(prior: DiffusionTextPrior) -> PromptEmbeddings:
    return PromptEmbeddings(prior, "a chair", "blurry", front_deg=45.0, perp_neg_weight=1.0, blended=True)


@pytest.mark.parametrize("memory", [MemoryUse(views_at_once=2), MemoryUse(views_at_once=N), FRUGAL])
def test_text_guidance_in_parts_has_the_same_loss_scores_and_gradient(hub: Path, memory: MemoryUse) -> None:
    prior, found = load_text_prior(PriorSource(str(hub / "text"), None)), []
    for each in (ALL_AT_ONCE, memory):
        spending(prior, each)
        rgb = pictures()
        guided = text_guidance(
            prior=prior,
            prompts=texts(prior),
            variational=None,
            rgb=rgb,
            cameras=turntable_cameras(N, 15.0, 20.0, 32),
            t_range=(0.2, 0.5),
            weights=sds_weights(20.0),
            generator=torch.Generator().manual_seed(7),
        )
        (3 * guided.loss).backward()
        found.append((guided.loss.detach(), rgb.grad, guided.noised.timesteps, guided.noised.noise, guided.scores["prompt"]))
    for one, other in zip(*found, strict=True):
        assert_close(one, other)
    assert float(found[0][1].abs().max()) > 0


def test_view_guidance_in_parts_has_the_same_loss_and_gradient(hub: Path) -> None:
    prior, found = load_view_prior(PriorSource(str(hub / "view"), None)), []
    for each in (ALL_AT_ONCE, FRUGAL):
        spending(prior, each)
        reference = prior.condition(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        rgb = pictures()
        guided = view_guidance(
            prior=prior,
            reference=reference,
            reference_elevation_deg=5.0,
            rgb=rgb,
            cameras=turntable_cameras(N, 15.0, 20.0, 32),
            t_range=(0.2, 0.5),
            weights=sds_weights(5.0),
            generator=torch.Generator().manual_seed(7),
        )
        guided.loss.backward()
        found.append((guided.loss.detach(), rgb.grad))
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def learned(prior: DiffusionTextPrior, memory: MemoryUse) -> tuple[list[Tensor], Tensor]:
    """Gradients of a fresh LoRA's numbers, and what it predicts."""
    spending(prior, memory)
    generator = torch.Generator().manual_seed(0)
    domain = prior.add_lora(2, generator)
    with torch.no_grad():
        for name, weight in domain.state_dict().items():
            if "lora_B" in name or "camera" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    latents = torch.randn(N, *prior.latent_shape, generator=generator)
    plain, cameras = prior.embed(["a chair"]).expand(N), turntable_cameras(N, 15.0, 20.0, 32).world_from_camera
    losses = variational_losses(
        domain=domain,
        prior=prior,
        latents=latents,
        plain=plain,
        world_from_camera=cameras,
        camera_dropout=0.0,
        generator=torch.Generator().manual_seed(9),
    )
    for loss in losses:
        loss.backward()
    with torch.no_grad():
        predicted = domain.predict_epsilon(latents, torch.full((N,), 300), plain, cameras)
    assert all(each.grad is not None for each in domain.parameters())
    return [each.grad for each in domain.parameters() if each.grad is not None], predicted


def test_a_lora_learns_the_same_in_parts_with_its_layers_computed_again(hub: Path) -> None:
    source = PriorSource(str(hub / "text"), None)
    whole, predicted = learned(load_text_prior(source), ALL_AT_ONCE)
    parts, again = learned(load_text_prior(source), FRUGAL)
    assert len(whole) == len(parts) > 0
    assert min(float(each.abs().max()) for each in whole) > 0
    for one, other in zip(whole, parts, strict=True):
        assert_close(one, other)
    assert_close(predicted, again)


def test_after_learning_the_frozen_network_answers_alone(hub: Path) -> None:
    source = PriorSource(str(hub / "text"), None)
    alone, with_lora = load_text_prior(source), load_text_prior(source)
    learned(with_lora, FRUGAL)
    noisy, t = torch.randn(1, *alone.latent_shape, generator=torch.Generator().manual_seed(3)), torch.tensor([400])
    text = alone.embed(["a chair"])
    torch.testing.assert_close(
        alone.predict_epsilon(noisy, t, text), with_lora.predict_epsilon(noisy, t, text), rtol=1e-4, atol=1e-5
    )


def test_drawing_and_estimating_in_parts_is_the_same(hub: Path) -> None:
    text = load_text_prior(PriorSource(str(hub / "text"), None))
    normals = load_normal_prior(PriorSource(str(hub / "normals"), None))
    drawn, estimated = [], []
    for each in (ALL_AT_ONCE, FRUGAL):
        spending(text, each)
        spending(normals, each)
        words = text.embed(["a chair"] * N + [""])
        drawn.append(
            text.sample(
                text=words.rows(slice(0, N)),
                negative=words.rows(slice(N, None)),
                guidance_scale=3.0,
                steps=2,
                renewed=1.0,
                generator=torch.Generator().manual_seed(2),
            )
        )
        estimated.append(normals.estimate(drawn[0][:2], 2, torch.Generator().manual_seed(2)))
    assert_close(*drawn)
    assert_close(*estimated)


def test_halves_overflow_only_where_a_folder_says_so(hub: Path) -> None:
    """diffusers fills `force_upcast` in as true where a folder is silent, as Stable Diffusion 1's and 2's are."""
    prior = load_text_prior(PriorSource(str(hub / "text"), None))
    config = dict(prior.autoencoder.config)
    for said, expected in ((None, torch.float16), (True, torch.float32), (False, torch.float16)):
        given = {name: value for name, value in config.items() if name not in ("force_upcast", "_use_default_values")}
        prior.autoencoder._internal_dict = type(prior.autoencoder.config)(
            given
            | ({"force_upcast": True, "_use_default_values": ["force_upcast"]} if said is None else {"force_upcast": said})
        )
        prior.compute_in(torch.float16)
        assert prior.autoencoder.dtype == expected
