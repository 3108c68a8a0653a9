"""Our normal prior is Marigold's pipeline: the same normals from the same noise."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, MarigoldNormalsPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from dreampolish.priors.estimators.normals import closest_to_mean, load_normal_prior
from dreampolish.priors.folders.source import PriorError, PriorSource
from tests.support.hub_folders import write_marigold


def _pipeline(folder: Path, full_z_range: bool, lcm: bool) -> MarigoldNormalsPipeline:
    prior = load_normal_prior(PriorSource(str(folder), None))
    pipeline = MarigoldNormalsPipeline(
        unet=prior.unet,
        vae=prior.autoencoder,
        scheduler=(LCMScheduler if lcm else DDIMScheduler).from_pretrained(folder / "scheduler"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        prediction_type="normals",
        use_full_z_range=full_z_range,
        default_denoising_steps=4,
        default_processing_resolution=64,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("ensemble", [1, 3])
@pytest.mark.parametrize("full_z_range", [True, False])
@pytest.mark.parametrize("lcm", [False, True])
def test_normals_are_the_pipelines(tmp_path: Path, lcm: bool, full_z_range: bool, ensemble: int) -> None:
    write_marigold(tmp_path, lcm=lcm, full_z_range=full_z_range)
    prior = load_normal_prior(PriorSource(str(tmp_path), None), ensemble)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ours = prior.estimate(images, 4, torch.Generator().manual_seed(1))
    theirs = _pipeline(tmp_path, full_z_range, lcm)(
        images,
        num_inference_steps=4,
        ensemble_size=ensemble,
        batch_size=2 * ensemble,
        generator=torch.Generator().manual_seed(1),
        output_type="pt",
    ).prediction
    cosines = (ours * theirs).sum(dim=1).clamp(-1, 1)
    assert float(torch.rad2deg(torch.arccos(cosines)).mean()) < 0.1
    assert float((ours - theirs).abs().max()) < 1e-3
    assert bool((ours[:, 2] < 0).any()) == full_z_range


def test_the_joined_normal_is_the_one_nearest_to_the_mean() -> None:
    angles = torch.tensor([0.0, 0.1, 1.5])
    normals = torch.stack([angles.sin(), torch.zeros(3), angles.cos()], dim=1)[None, :, :, None, None]
    assert torch.equal(closest_to_mean(normals)[0, :, 0, 0], normals[0, 1, :, 0, 0])


def test_a_scheduler_that_marigold_does_not_have_is_refused(tmp_path: Path) -> None:
    write_marigold(tmp_path)
    path = tmp_path / "scheduler/scheduler_config.json"
    path.write_text(path.read_text().replace("DDIMScheduler", "HeunDiscreteScheduler"))
    with pytest.raises(PriorError, match="HeunDiscreteScheduler"):
        load_normal_prior(PriorSource(str(tmp_path), None))
