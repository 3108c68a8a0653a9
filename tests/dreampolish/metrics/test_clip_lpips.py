"""Real CLIP and real LPIPS on tiny or random weights of the real classes, the trunk's conversion, and refusals."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertModel, CLIPModel, CLIPTokenizer

from dreampolish.metrics.clip import load_clip
from dreampolish.metrics.judge_network import LiteTrunk
from dreampolish.metrics.lpips import LAYERS, Lpips, LpipsError, load_lpips
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.protocols import ImageTextScorer
from dreampolish.scene.cameras import orbit_cameras
from dreampolish.training.converters import EPSILON, convert, folded, trunk_from_original
from schemas.config.run import LocalSource, PriorsConfig
from schemas.config.run import PriorSource as PriorSetting
from stages.guidance.reference_view import ReferenceView
from stages.results.scores import clip_scorer, lpips_distance, real_figures
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from tests.support.tiny_priors import write_clip

CPU = torch.device("cpu")
JUDGE = Path(__file__).parents[3] / "priors" / "home" / "judge"


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def lpips_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the originals' names and shapes, converted by the real command's function."""
    folder, generator = tmp_path_factory.mktemp("lpips"), torch.Generator().manual_seed(0)
    alexnet, alex = {"classifier.1.weight": torch.zeros(2, 2)}, {}
    for index, (place, inputs, outputs, kernel, _, _) in enumerate(LAYERS):
        fan = inputs * kernel**2
        alexnet[f"features.{place}.weight"] = (
            torch.randn(outputs, inputs, kernel, kernel, generator=generator) * (2 / fan) ** 0.5
        )
        alexnet[f"features.{place}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
        alex[f"lin{index}.model.1.weight"] = torch.rand(1, outputs, 1, 1, generator=generator)
    torch.save(alexnet, folder / "alexnet.pth")
    torch.save(alex, folder / "alex.pth")
    convert(folder / "alexnet.pth", folder / "alex.pth", folder / "out")
    return folder / "out"


def test_clip_embeds_as_the_model_itself_does(clip_folder: Path) -> None:
    scorer = load_clip(PriorSource(str(clip_folder), None), CPU)
    assert isinstance(scorer, ImageTextScorer)
    model = CLIPModel.from_pretrained(clip_folder).eval()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mean, deviation = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (images - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(["a red chair", "a table"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(pixel_values=pixels, **tokens)
    torch.testing.assert_close(scorer.embed_images(images), expected.image_embeds)
    torch.testing.assert_close(scorer.embed_texts(["a red chair", "a table"]), expected.text_embeds)
    assert scorer.embed_images(torch.rand(1, 3, 40, 40)).shape == (1, 8)
    assert scorer.embed_texts(["a very long prompt " * 30]).shape == (1, 8)


def test_what_is_no_clip_is_refused_in_one_line(tmp_path: Path, clip_folder: Path) -> None:
    cases = {
        "absent": "no prior folder",
        "empty": "config.json cannot be read",
        "bert": "is a bert model, no CLIP",
        "torn": "is empty",
    }
    (tmp_path / "empty").mkdir()
    BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    shutil.copytree(clip_folder, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"")
    for name, words in cases.items():
        with pytest.raises(PriorError, match=words) as caught:
            load_clip(PriorSource(str(tmp_path / name), None), CPU)
        assert "\n" not in str(caught.value)


def test_lpips_is_its_formula_on_torchvisions_layout(lpips_folder: Path) -> None:
    """The backbone once more as torchvision writes it, and the distance place by place."""
    backbone, linear = load_file(lpips_folder / "alexnet.safetensors"), load_file(lpips_folder / "lpips_alex.safetensors")
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    features.load_state_dict({name.removeprefix("features."): value for name, value in backbone.items()})
    generator = torch.Generator().manual_seed(2)
    pair = torch.rand(2, 64, 64, 3, generator=generator)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, expected, layer = ((pair * 2 - 1 - shift) / scale).permute(0, 3, 1, 2), 0.0, 0
    with torch.no_grad():
        for module in features:
            x = module(x)
            if isinstance(module, nn.ReLU):
                unit = x / x.norm(dim=1, keepdim=True)
                weights = linear[f"lin.{layer}.weight"].flatten()
                expected += float(((unit[0] - unit[1]) ** 2).mean(dim=(1, 2)) @ weights)
                layer += 1
    found = load_lpips(lpips_folder, CPU)
    assert layer == 5
    assert float(found(pair[:1], pair[1:])) == pytest.approx(expected, rel=1e-4)
    assert float(found(pair[1:], pair[:1])) == pytest.approx(expected, rel=1e-4)
    assert float(found(pair[:1], pair[:1])) == 0
    slight = (pair[:1] + 0.02 * torch.randn(pair[:1].shape, generator=generator)).clamp(0, 1)
    assert 0 < float(found(pair[:1], slight)) < expected


def test_lpips_refuses_small_pictures_and_other_weights(lpips_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 pixels"):
        Lpips()(torch.rand(1, 32, 32, 3), torch.rand(1, 32, 32, 3))
    with pytest.raises(LpipsError, match="lacks alexnet.safetensors, lpips_alex.safetensors"):
        load_lpips(tmp_path, CPU)
    for name in ("alexnet", "lpips_alex"):
        save_file({"features.0.weight": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(LpipsError, match="damaged or of another kind") as caught:
        load_lpips(tmp_path, CPU)
    assert "\n" not in str(caught.value)


def _view(size: int) -> ReferenceView:
    generator = torch.Generator().manual_seed(3)
    camera = orbit_cameras(torch.zeros(1), torch.zeros(1), torch.full((1,), 20.0), size)
    rgb = torch.rand(1, size, size, 3, generator=generator)
    return ReferenceView(rgb, torch.ones(1, size, size), torch.zeros(1, size, size, 3), camera, "a red chair", rgb)


def test_figures_have_real_names_only_where_real_weights_are_configured(
    run_context: RunContext, clip_folder: Path, lpips_folder: Path
) -> None:
    view = _view(64)
    views = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    assert real_figures(run_context, view, view.rgb, views) == {}
    for ask, word in ((clip_scorer, "CLIP"), (lpips_distance, "LPIPS")):
        with pytest.raises(StageError, match=f"no {word} is configured"):
            ask(run_context)
    priors = PriorsConfig(clip=PriorSetting(source=str(clip_folder)), lpips=LocalSource(source=str(lpips_folder)))
    run = run_context.model_copy(update={"priors": priors})
    found = real_figures(run, view, view.rgb, torch.cat([view.rgb, views]))
    assert set(found) == {"clip_text", "clip_image", "lpips"}
    assert found["lpips"] == 0
    assert real_figures(run, view, view.rgb, view.rgb)["clip_image"] == pytest.approx(1, abs=1e-5)
    assert -1 <= found["clip_text"] <= 1 and 0 < found["clip_image"] < 1
    assert "lpips" not in real_figures(run, _view(32), _view(32).rgb, views)
    broken = PriorsConfig(clip=PriorSetting(source=str(lpips_folder)))
    with pytest.raises(StageError, match="config.json cannot be read"):
        real_figures(run_context.model_copy(update={"priors": broken}), view, view.rgb, views)


def test_a_folded_convolution_equals_convolution_and_batch_norm() -> None:
    generator = torch.Generator().manual_seed(5)
    convolution, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=EPSILON).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
        tensor.copy_(torch.randn(4, generator=generator))
    norm.running_var.copy_(torch.rand(4, generator=generator) + 0.1)
    x = torch.randn(2, 3, 9, 9, generator=generator)
    parts = folded(convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    torch.testing.assert_close(nn.functional.conv2d(x, *parts), norm(convolution(x)), atol=1e-5, rtol=1e-4)


def test_the_trunk_takes_every_layer_of_the_original_in_order() -> None:
    """A made-up original whose n-th convolution holds n everywhere."""
    shipped = load_file(JUDGE / "trunk.safetensors")
    blocks = [name for name in LiteTrunk().state_dict() if name.endswith("weight")]
    assert blocks[0] == "stem.conv.weight"
    weights, number, block, order = {}, 0, -1, {}
    for name in blocks:
        kind = name.split(".")[-3]
        if kind in ("expand", "depthwise") and (kind == "expand" or name.startswith("stages.0.")):
            block += 1
        original, norm = {
            "stem": ("_conv_stem", "_bn0"),
            "expand": (f"_blocks.{block}._expand_conv", f"_blocks.{block}._bn0"),
            "depthwise": (f"_blocks.{block}._depthwise_conv", f"_blocks.{block}._bn1"),
            "project": (f"_blocks.{block}._project_conv", f"_blocks.{block}._bn2"),
        }[kind]
        channels = shipped[name].shape[0]
        weights[f"{original}.weight"] = torch.full(shipped[name].shape, float(number))
        weights |= {f"{norm}.weight": torch.ones(channels), f"{norm}.bias": torch.full((channels,), float(number))}
        weights |= {f"{norm}.running_mean": torch.zeros(channels), f"{norm}.running_var": torch.full((channels,), 1 - EPSILON)}
        order[name], number = number, number + 1
    assert block == 14
    state = trunk_from_original(weights)
    assert set(state) == set(shipped)
    for name, expected in order.items():
        assert torch.equal(state[name], torch.full_like(shipped[name], expected))
        assert torch.equal(
            state[name.replace("weight", "bias")], torch.full_like(shipped[name.replace("weight", "bias")], expected)
        )
