"""The multiview network at its start, its files, the codec, and sampling."""

from pathlib import Path

import pytest
import torch

from dreampolish.priors.folders.loading import load_autoencoder
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.multiview.network import (
    MultiviewNetwork,
    MultiviewShape,
    SetCondition,
    build_network,
    load_network,
    save_network,
    view_rays,
)
from dreampolish.priors.multiview.prior import MultiviewPrior, SetRequest
from dreampolish.scene.cameras import orbit_cameras, rays_from_cameras
from dreampolish.training.diffusion import build_schedule
from dreampolish.training.multiview.codec import load_codec

SHAPE = MultiviewShape(widths=(16, 32, 32), embedding=32, head=16, text_width=24)


def told(sets: int, views: int) -> SetCondition:
    generator = torch.Generator().manual_seed(5)
    azimuth = 360 * torch.rand(sets, views, generator=generator)
    text = torch.randn(sets, 4, 24, generator=generator)
    none = torch.zeros(sets, views)
    return SetCondition(none, none, azimuth, azimuth / 12, text, torch.ones(sets, 4, dtype=torch.bool))


def stirred(network: MultiviewNetwork, joint: bool) -> MultiviewNetwork:
    """All zero starts away, but for the joint attention's unless `joint`."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if joint or ".joint.out" not in name:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("joint", [False, True])
def test_views_are_drawn_alone_until_the_joint_attention_learns(joint: bool) -> None:
    network, condition = stirred(build_network(SHAPE, 0), joint), told(2, 3)
    latents = torch.randn(2, 3, 32, 16, 16)
    times = torch.full((2, 3), 400)
    whole = network(latents, times, condition)
    one = SetCondition(
        *(each[:, 1:2] for each in (condition.clean, condition.absent, condition.azimuth_deg, condition.elevation_deg)),
        condition.text, condition.mask,
    )  # fmt: skip
    alone = network(latents[:, 1:2], times[:, 1:2], one)
    difference = float((whole[:, 1:2] - alone).abs().max())
    assert (difference > 1e-3) if joint else (difference < 1e-4)


def test_rays_are_those_of_the_cameras() -> None:
    azimuth, elevation = torch.tensor([20.0, 250.0]), torch.tensor([5.0, 40.0])
    origins, directions = rays_from_cameras(orbit_cameras(azimuth, elevation, torch.full((2,), 20.0), 16))
    found = view_rays(azimuth, elevation, 16).permute(0, 2, 3, 1)
    torch.testing.assert_close(found[..., :3], directions, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[..., 3:], torch.linalg.cross(origins, directions), atol=1e-4, rtol=1e-4)


def test_a_network_comes_back_from_its_folder(tmp_path: Path) -> None:
    network = stirred(build_network(SHAPE, 0), True)
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    assert again.shape == SHAPE
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=2e-3)


def test_the_codec_is_the_shipped_autoencoder() -> None:
    shipped = load_autoencoder(PriorSource("priors/home/view", None))
    codec = load_codec(Path("priors/home/autoencoder/diffusion_pytorch_model.safetensors"))
    pictures = torch.rand(2, 3, 128, 128)
    latents = shipped.encode(pictures * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(codec.encode(pictures), latents, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        codec.decode(latents), ((shipped.decode(latents).sample + 1) / 2).clamp(0, 1), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(codec.channel_weights(0.75), shipped.channel_weights(0.75))
    torch.testing.assert_close(codec.alphas_cumprod, build_schedule().alphas_cumprod)


@pytest.mark.parametrize("referred", [False, True])
def test_sets_are_sampled_with_and_without_a_reference(referred: bool) -> None:
    codec = load_codec(Path("priors/home/autoencoder/diffusion_pytorch_model.safetensors"))
    prior = MultiviewPrior(codec, stirred(build_network(SHAPE, 0), True))
    condition = told(2, 6)
    reference = torch.rand(2, 3, 128, 128) if referred else None
    request = SetRequest(
        condition.azimuth_deg, condition.elevation_deg, reference, condition.text, condition.mask, condition.text[:1],
        condition.mask[:1],
    )  # fmt: skip
    found = prior.sample(request, 2.0, 2, 1.0, torch.Generator().manual_seed(0))
    assert found.shape == (2, 6, 3, 128, 128)
    if reference is not None:
        torch.testing.assert_close(found[:, 0], codec.decode(codec.encode(reference)))
