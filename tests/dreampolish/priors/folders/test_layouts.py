"""Public layouts open with their own weights, or are refused by name in one line, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreampolish.priors.estimators.normals import load_normal_prior
from dreampolish.priors.folders.contents import contents_of
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.view import load_view_prior
from tests.support.hub_folders import hub_unet, write_index, write_marigold, write_stable_diffusion, write_zero123


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of each public layout."""
    hub = tmp_path_factory.mktemp("hub")
    write_stable_diffusion(hub / "sd")
    write_zero123(hub / "zero123")
    write_marigold(hub / "marigold")
    return hub


def _source(folder: Path) -> PriorSource:
    return PriorSource(str(folder), None)


def test_stable_diffusion_opens_with_its_own_weights_under_their_old_names(hub: Path) -> None:
    prior, written = load_text_prior(_source(hub / "sd")), load_file(hub / "sd/text_encoder/model.safetensors")
    own = prior.tower.encoder.state_dict()  # type: ignore[attr-defined]
    assert len(own) >= len(written) - 1
    for name, value in written.items():
        if "position_ids" not in name:
            assert torch.equal(own[name.removeprefix("text_model.")], value), name
    assert prior.image_size == 64
    assert prior.embed(["a chair", ""]).states.shape == (2, 77, 32)


@pytest.mark.parametrize(
    ("component", "layer"), [("clip_camera_projection", "proj"), ("cc_projection", "projection"), ("cc_projection", "proj")]
)
def test_both_zero123_layouts_open_with_the_files_projection(tmp_path: Path, component: str, layer: str) -> None:
    linear = write_zero123(tmp_path, component=component, layer=layer)
    prior = load_view_prior(_source(tmp_path))
    assert torch.equal(prior.projection.linear.weight, linear.weight)
    assert torch.equal(prior.projection.linear.bias, linear.bias)
    tokens, pose = torch.rand(2, 1, 32), torch.rand(2, 4)
    expected = linear(torch.cat([tokens[:, 0], pose], dim=1))
    assert torch.allclose(prior.projection(tokens, pose)[:, 0], expected, atol=1e-6)
    # Zero123's pipelines sample the unconditional domain under a context of zeros.
    tokens[1] = 0
    assert torch.equal(prior.projection(tokens, pose)[1], torch.zeros(1, 32))
    assert contents_of(_source(tmp_path)).role == "view"


def test_halves_alone_open_and_whole_numbers_are_preferred(hub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(hub / "sd", folder)
    for path in folder.rglob("*.safetensors"):
        halves = {name: value.half() if value.is_floating_point() else value for name, value in load_file(path).items()}
        save_file(halves, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
    both = load_text_prior(_source(folder)).network.module.conv_in.weight
    assert torch.equal(both, load_text_prior(_source(hub / "sd")).network.module.conv_in.weight)
    for path in folder.rglob("*.safetensors"):
        if ".fp16." not in path.name:
            path.unlink()
    assert contents_of(_source(folder)).variants == ("fp16",)
    assert torch.equal(load_text_prior(_source(folder)).network.module.conv_in.weight, both.half().float())


def test_the_roles_are_told_apart(hub: Path) -> None:
    found = {name: contents_of(_source(hub / name)) for name in ("sd", "zero123", "marigold")}
    assert [each.role for each in found.values()] == ["text", "view", "normals"]
    assert found["sd"].licences == ("openrail++",)
    assert [each.image_size for each in found.values()] == [64, 64, 64]
    unet = sum(value.numel() for value in hub_unet(4).parameters())
    assert found["sd"].parameters["unet"] == unet
    assert found["sd"].memory_gib(2) == pytest.approx(sum(found["sd"].parameters.values()) * 2 / 2**30)


def _rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


UNET = "unet/diffusion_pytorch_model.safetensors"


def _truncated(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-1000])


def _renamed(folder: Path) -> None:
    _rewritten(folder / UNET, lambda state: state.update({"conv_inn.weight": state.pop("conv_in.weight")}))


def _wider(folder: Path) -> None:
    config = folder / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 48}))


def _pickled(folder: Path) -> None:
    torch.save(load_file(folder / UNET), folder / "unet/diffusion_pytorch_model.bin")
    (folder / UNET).unlink()


def _pointer(folder: Path) -> None:
    (folder / UNET).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167540\n")


def _emptied(folder: Path) -> None:
    (folder / UNET).write_bytes(b"")


def _without_unet(folder: Path) -> None:
    shutil.rmtree(folder / "unet")


def _config_gone(folder: Path) -> None:
    (folder / "unet/config.json").unlink()


def _no_words(folder: Path) -> None:
    (folder / "tokenizer/vocab.json").unlink()


def _tower_cut(folder: Path) -> None:
    name = "text_model.encoder.layers.0.mlp.fc1.weight"
    _rewritten(folder / "text_encoder/model.safetensors", lambda state: state.pop(name))


def _shard_missing(folder: Path) -> None:
    (folder / UNET).unlink()
    shards = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(shards))


def _sample_predicted(folder: Path) -> None:
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', '"sample"'))


FAULTS = {
    _truncated: "not copied to its end",
    _renamed: r"lacks conv_in\.weight; holds conv_inn\.weight",
    _wider: r"in another shape: \[32, 32\], not \[32, 48\]|in another shape: \[16, 32\], not \[16, 48\]",
    _pickled: "priors convert",
    _pointer: "pointer of Git LFS",
    _emptied: "is empty: accept the model's licence",
    _without_unet: "no unet/",
    _config_gone: r"unet/config\.json cannot be read",
    _no_words: "holds no vocabulary",
    _tower_cut: r"lacks encoder\.layers\.0\.mlp\.fc1\.weight",
    _shard_missing: "lacks diffusion_pytorch_model-00001-of-00002",
    _sample_predicted: "predicts 'sample'",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_faulty_folder_is_refused_in_one_line_before_any_weight_is_read(
    hub: Path, tmp_path: Path, fault: Callable[[Path], None]
) -> None:
    shutil.copytree(hub / "sd", tmp_path / "sd")
    fault(tmp_path / "sd")
    with pytest.raises(PriorError, match=FAULTS[fault]) as caught:
        contents_of(_source(tmp_path / "sd"))
    assert "\n" not in str(caught.value)
    assert "sd" in str(caught.value)
    if fault is not _no_words:
        with pytest.raises((PriorError, OSError)):
            load_text_prior(_source(tmp_path / "sd"))


def test_a_projection_with_another_tensor_is_refused(tmp_path: Path) -> None:
    write_zero123(tmp_path)
    path = tmp_path / "clip_camera_projection/diffusion_pytorch_model.safetensors"
    _rewritten(path, lambda state: state.update({"proj.extra": torch.zeros(2)}))
    with pytest.raises(PriorError, match=r"holds proj\.extra"):
        load_view_prior(_source(tmp_path))
    _rewritten(path, lambda state: [state.pop("proj.extra"), state.pop("proj.bias")])
    with pytest.raises(PriorError, match=r"lacks proj\.bias"):
        load_view_prior(_source(tmp_path))


def test_models_that_no_stage_uses_are_named(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub / "sd", tmp_path / "inpainting")
    shutil.rmtree(tmp_path / "inpainting/unet")
    hub_unet(9).save_pretrained(tmp_path / "inpainting/unet")
    with pytest.raises(PriorError, match="inpainting"):
        contents_of(_source(tmp_path / "inpainting"))
    shutil.copytree(hub / "marigold", tmp_path / "depth")
    write_index(tmp_path / "depth", _class_name="MarigoldDepthPipeline")
    with pytest.raises(PriorError, match="draws no normals"):
        contents_of(_source(tmp_path / "depth"))
    (tmp_path / "single").mkdir()
    (tmp_path / "single/v2-1_512.safetensors").write_bytes(b"")
    with pytest.raises(PriorError, match="single files"):
        contents_of(_source(tmp_path / "single"))


def test_a_normal_prior_works_at_the_size_that_its_index_names(hub: Path) -> None:
    assert load_normal_prior(_source(hub / "marigold")).image_size == 64


def test_the_refining_part_of_stable_normal_is_not_taken_for_a_text_prior(tmp_path: Path) -> None:
    write_stable_diffusion(tmp_path)
    write_index(tmp_path, _class_name="StableNormalPipeline")
    with pytest.raises(PriorError, match="take its one-step part"):
        contents_of(_source(tmp_path))
