"""Pickles become folders that open with the same weights; what is more than tensors is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file

from dreampolish.priors.folders.contents import contents_of
from dreampolish.priors.folders.convert import convert
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.view import load_view_prior
from tests.support.hub_folders import hub_picture_tower, write_stable_diffusion
from tests.support.original_names import original_picture_tower, original_unet, original_vae

LEVELS = 2


def _networks() -> tuple[UNet2DConditionModel, AutoencoderKL, Any]:
    """The least that Stable Diffusion's groups of 32 allow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DConditionModel(
            sample_size=128,
            in_channels=8,
            out_channels=4,
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
            up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
            block_out_channels=[32, 64],
            layers_per_block=2,
            cross_attention_dim=24,
            attention_head_dim=8,
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * LEVELS,
            up_block_types=["UpDecoderBlock2D"] * LEVELS,
            block_out_channels=[32, 64],
            layers_per_block=1,
            sample_size=256,
        )
        return unet, vae, hub_picture_tower(20)


def _checkpoint(path: Path) -> tuple[UNet2DConditionModel, AutoencoderKL, Any, torch.Tensor]:
    unet, vae, tower = _networks()
    weight = torch.randn(24, 24, generator=torch.Generator().manual_seed(6))
    state = {
        **original_unet(unet.state_dict(), 2),
        **original_vae(vae.state_dict(), LEVELS),
        **original_picture_tower(tower.state_dict(), 1),
        "cc_projection.weight": weight,
        "cc_projection.bias": torch.arange(24.0),
        "betas": torch.zeros(3),
    }
    torch.save({"state_dict": state, "global_step": 3}, path)
    return unet, vae, tower, weight


@pytest.mark.parametrize(
    ("name", "convention", "fourth"),
    [("stable_zero123.ckpt", "reference_elevation", 1.3962634), ("zero123-xl.ckpt", "distance_change", 0.0)],
)
def test_a_single_file_of_zero123_opens_with_its_own_weights(tmp_path: Path, name: str, convention: str, fourth: float) -> None:
    unet, vae, tower, weight = _checkpoint(tmp_path / name)
    convert(tmp_path / name, tmp_path / "out", None)
    prior = load_view_prior(PriorSource(str(tmp_path / "out"), None))
    for ours, theirs in ((prior.unet, unet), (prior.autoencoder, vae), (prior.context.tower, tower)):  # type: ignore[attr-defined]
        own = ours.state_dict()
        assert {name: tuple(value.shape) for name, value in own.items()} == {
            name: tuple(value.shape) for name, value in theirs.state_dict().items()
        }
        assert all(torch.equal(own[name], value) for name, value in theirs.state_dict().items())
    assert torch.equal(prior.projection.linear.weight, weight)
    noisy, text = torch.randn(1, 8, 16, 16), torch.randn(1, 1, 24)
    expected = unet(noisy, torch.tensor([300]), encoder_hidden_states=text).sample
    assert torch.allclose(prior.unet(noisy, torch.tensor([300]), encoder_hidden_states=text).sample, expected, atol=1e-5)
    assert prior.pose_convention == convention
    # threestudio's stable_zero123_guidance: rad(90 - elevation of the reference), here 10 degrees.
    pose = prior.pose(torch.tensor([90.0]), torch.tensor([40.0]), 10.0)
    assert torch.allclose(pose, torch.tensor([[-0.5235988, 1.0, 0.0, fourth]]), atol=1e-6)
    assert contents_of(PriorSource(str(tmp_path / "out"), None)).image_size == 256


def test_a_folder_of_pickles_opens_like_the_original(tmp_path: Path) -> None:
    write_stable_diffusion(tmp_path / "sd")
    shutil.copytree(tmp_path / "sd", tmp_path / "bin")
    for path in sorted((tmp_path / "bin").rglob("*.safetensors")):
        name = "pytorch_model.bin" if path.stem == "model" else f"{path.stem}.bin"
        torch.save(load_file(path), path.with_name(name))
        path.unlink()
    with pytest.raises(PriorError, match="priors convert"):
        load_text_prior(PriorSource(str(tmp_path / "bin"), None))
    convert(tmp_path / "bin", tmp_path / "out", None)
    found, expected = (load_text_prior(PriorSource(str(tmp_path / name), None)) for name in ("out", "sd"))
    assert all(
        torch.equal(a, b) for a, b in zip(found.network.module.parameters(), expected.network.module.parameters(), strict=True)
    )
    assert torch.equal(found.embed(["a chair"]).states, expected.embed(["a chair"]).states)
    assert contents_of(PriorSource(str(tmp_path / "out"), None)).licences == ("openrail++",)
    with pytest.raises(PriorError, match="exists already"):
        convert(tmp_path / "bin", tmp_path / "out", None)
    with pytest.raises(PriorError, match="nothing to convert"):
        convert(tmp_path / "sd", tmp_path / "again", None)
    assert not (tmp_path / "again").exists()


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("foreign code ran",))


def test_more_than_tensors_other_models_and_damage_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(
        {"state_dict": {"model.diffusion_model.out.2.weight": torch.zeros(1)}, "callback": Evil()}, tmp_path / "evil.ckpt"
    )
    torch.save({"model.diffusion_model.out.2.weight": torch.zeros(1)}, tmp_path / "sd15.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "sd15.ckpt").read_bytes()[:200])
    for name, words in (
        ("evil.ckpt", "more than tensors"),
        ("sd15.ckpt", "only Zero123's single files"),
        ("cut.ckpt", "damaged"),
        ("none.ckpt", "nothing at"),
    ):
        with pytest.raises(PriorError, match=words) as caught:
            convert(tmp_path / name, tmp_path / "out", None)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
    assert "foreign code ran" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("folder", "convention"),
    [("stable-zero123-diffusers", "reference_elevation"), ("zero123-xl", "distance_change")],
)
def test_the_poses_convention_is_known_by_the_models_name_unless_the_setting_says_it(
    tmp_path: Path, folder: str, convention: str
) -> None:
    from tests.support.hub_folders import write_zero123

    write_zero123(tmp_path / folder)
    source = PriorSource(str(tmp_path / folder), None)
    assert load_view_prior(source).pose_convention == convention
    assert load_view_prior(source, "distance_change").pose_convention == "distance_change"
    assert load_view_prior(source, "reference_elevation").pose_convention == "reference_elevation"
