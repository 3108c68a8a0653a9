"""Models: what is downloaded of a repository, what a check says, and what a run with a wrong one costs: one line."""

import json
from pathlib import Path

import pytest

from flows.cli.priors import check, convert, fetch
from flows.runs.create import check_priors, new_run
from flows.runs.models.hub import known_models, models_of_preset, wanted_files
from schemas.config.presets import ConfigError, load_config
from stages.runtime.files import CONFIGS
from tests.support.hub_folders import write_marigold, write_stable_diffusion


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text and a normal prior of public layouts."""
    hub = tmp_path_factory.mktemp("hub")
    write_stable_diffusion(hub / "sd")
    write_marigold(hub / "marigold")
    return hub


def test_of_a_repository_one_set_of_weights_a_component_is_wanted() -> None:
    names = [
        "README.md",
        "model_index.json",
        "v2-1_512-ema-pruned.ckpt",
        "v2-1_512-ema-pruned.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder_2/model-00001-of-00002.safetensors",
        "text_encoder_2/model-00002-of-00002.safetensors",
        "text_encoder_2/model.safetensors.index.json",
        "text_encoder_2/model.fp16-00001-of-00002.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "safety_checker/model.safetensors",
        "samples/a/b.json",
    ]
    assert wanted_files(names) == sorted(
        [
            "README.md",
            "model_index.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/pytorch_model.bin",
            "text_encoder_2/model-00001-of-00002.safetensors",
            "text_encoder_2/model-00002-of-00002.safetensors",
            "text_encoder_2/model.safetensors.index.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
        ]
    )


def test_every_folder_of_the_sd_presets_is_in_the_list() -> None:
    assert len({entry.folder for entry in known_models()}) == len(known_models())
    for preset in ("sd", "sd-fast"):
        config = load_config(preset, CONFIGS, [])
        assert [entry.role for entry in models_of_preset(config)] == ["text", "view", "normals"]
    assert models_of_preset(load_config("home", CONFIGS, [])) == []
    with pytest.raises(ConfigError, match="no preset 'models'"):
        load_config("models", CONFIGS, [])


def test_check_says_what_a_folder_is_and_what_to_type(hub: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check([hub / "sd", hub / "marigold"], as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert f"--set priors.text.source={hub / 'sd'}" in lines[0]
    assert "openrail++" in lines[0]
    assert f"--set priors.normals.source={hub / 'marigold'}" in lines[1]
    assert [each["role"] for each in json.loads(lines[-1])["priors"]] == ["text", "normals"]


def test_a_prior_in_another_priors_place_is_refused_before_any_work(hub: Path, store: Path) -> None:
    config = load_config("home", CONFIGS, [f"priors.text.source={hub / 'marigold'}"])
    with pytest.raises(ConfigError, match="is no text prior but a normals prior") as caught:
        check_priors(config)
    assert f"--set priors.normals.source={hub / 'marigold'}" in str(caught.value)
    (hub / "sd/unet/diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ConfigError, match="pointer of Git LFS"):
        new_run(store=store, prompt="a chair", preset="smoke", overrides=[f"priors.text.source={hub / 'sd'}"], image=None)
    assert not (store / "runs").exists()


def test_fetch_and_convert_tell_their_mistakes_in_one_line(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for command in (lambda: fetch(preset="sd"), lambda: convert(tmp_path / "none.ckpt", tmp_path / "out")):
        with pytest.raises(SystemExit) as caught:
            command()
        assert caught.value.code == 2
        told = capsys.readouterr().err
        assert "internal error" not in told
        assert "not fetched" in told or "nothing at" in told
