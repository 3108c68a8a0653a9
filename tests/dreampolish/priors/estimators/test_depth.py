"""The depth prior on a tiny real estimator."""

import json
from pathlib import Path

import pytest
import torch
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from dreampolish.priors.estimators.depth import load_depth_prior
from dreampolish.priors.folders.source import PriorError, PriorSource


def _write(folder: Path, kind: str) -> DepthAnythingForDepthEstimation:
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        depth_estimation_type=kind,
        max_depth=1,
    )
    network = DepthAnythingForDepthEstimation(config).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    return network


@pytest.mark.parametrize(("kind", "sign"), [("relative", -1), ("metric", 1)])
def test_depth_grows_away_from_the_viewer(tmp_path: Path, kind: str, sign: int) -> None:
    network = _write(tmp_path, kind)
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = load_depth_prior(PriorSource(str(tmp_path), None)).estimate(images)
    with torch.no_grad():
        expected = network(pixel_values=(images - 0.5) / 0.25).predicted_depth
    assert found.shape == (2, 28, 28)
    torch.testing.assert_close(found, sign * expected, atol=1e-5, rtol=1e-4)


def test_what_is_no_depth_estimator_is_refused_in_one_line(tmp_path: Path) -> None:
    _write(tmp_path, "relative")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "fusion_hidden_size": 16}))
    with pytest.raises(PriorError, match="other tensors|lacks") as caught:
        load_depth_prior(PriorSource(str(tmp_path), None))
    assert "\n" not in str(caught.value)
