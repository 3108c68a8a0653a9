"""StableNormal's one-step part on real classes made tiny: both generations, axes, memory.

The arithmetic was compared once with the authors' pipeline (v0) on these folders.
"""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch.nn import functional

from dreampolish.optim.live_bytes import LiveBytes
from dreampolish.priors.estimators.yoso import OneStepNormalPrior, load_one_step
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.multiview.loading import contents_of_any
from dreampolish.priors.rehearsal.estimators import one_step_bytes
from tests.support.hub_folders import write_yoso

OURS = "right up viewer"


def _loaded(folder: Path, axes: str = OURS) -> OneStepNormalPrior:
    return load_one_step(PriorSource(str(folder), None), axes)


def _pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _by_hand(folder: Path, start: torch.Tensor | None, context: torch.Tensor) -> torch.Tensor:
    """What the authors' pipelines do, with diffusers' whole control network, whose part for pixels adds zero."""
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    control = ControlNetModel.from_pretrained(folder / "controlnet").eval()
    torch.nn.init.zeros_(control.controlnet_cond_embedding.conv_out.weight)
    torch.nn.init.zeros_(control.controlnet_cond_embedding.conv_out.bias)
    with torch.no_grad():
        latents = vae.encode(_pictures() * 2 - 1).latent_dist.mode() * 0.18215
        blank = torch.zeros(2, 3, 16, 16)
        down, middle = control(latents, 0, context, blank, return_dict=False)
        found = unet(
            latents if start is None else start,
            0,
            context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return functional.normalize(vae.decode(found / 0.18215).sample, dim=1)


def test_the_second_generation_starts_from_the_picture(tmp_path: Path) -> None:
    prior = _loaded(write_yoso(tmp_path, words=False))
    found = prior.estimate(_pictures(), 1, torch.Generator())
    expected = _by_hand(tmp_path, None, torch.zeros(2, 257, 32))
    assert float((found * expected).sum(dim=1).min()) > 0.9999
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 64, 64))
    other = prior.estimate(_pictures().flip(0), 5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(other, found.flip(0), atol=1e-4, rtol=1e-3)  # no steps, nothing drawn


def test_the_first_generation_starts_from_noise_under_its_prompt(tmp_path: Path) -> None:
    prior = _loaded(write_yoso(tmp_path, words=True))
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    found = prior.estimate(_pictures(), 1, torch.Generator().manual_seed(4))
    context = prior._context
    assert context.shape == (1, 77, 32)
    expected = _by_hand(tmp_path, noise, context.expand(2, -1, -1))
    assert float((found * expected).sum(dim=1).min()) > 0.9999


def test_axes_are_turned_to_ours(tmp_path: Path) -> None:
    write_yoso(tmp_path, words=False)
    ours, theirs = (_loaded(tmp_path, axes).estimate(_pictures(), 1, torch.Generator()) for axes in (OURS, "left up away"))
    torch.testing.assert_close(theirs, ours * torch.tensor([-1.0, 1.0, -1.0]).view(1, 3, 1, 1))


@pytest.mark.parametrize("words", [False, True])
def test_a_folder_says_what_it_is(tmp_path: Path, words: bool) -> None:
    found = contents_of_any(PriorSource(str(write_yoso(tmp_path, words=words)), None))
    assert (found.role, found.image_size, found.prediction) == ("normals", 64, "normals")
    assert ("text_encoder" in found.parameters) == words


def test_it_takes_what_is_counted(tmp_path: Path) -> None:
    prior = _loaded(write_yoso(tmp_path, words=False))
    counted = one_step_bytes(PriorSource(str(tmp_path), None), torch.float32, torch.float32)
    latents, there = torch.rand(1, 4, 8, 8), [each for network in prior.networks() for each in network.parameters()]
    with torch.no_grad(), LiveBytes([*there, latents, prior._context]) as live:
        prior.output(latents, latents)
    assert live.peak == pytest.approx(counted.row, rel=0.25)
