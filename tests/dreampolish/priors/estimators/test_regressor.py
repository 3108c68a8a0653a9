"""One-step normal networks in ONNX files: axes, values, sizes, refusals."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreampolish.priors.estimators.regressor import NormalRegressor, load_regressor
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.multiview.loading import contents_of_any
from tests.support.onnx_file import RED_LESS_GREEN

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Given:
    """An input of 16 pixels a side."""

    name, shape = "picture", ("batch", 3, 16, 16)


class Echo:
    """A session that gives back the picture, through a function."""

    def __init__(self, change: Any) -> None:
        self._change = change

    def get_inputs(self) -> list[Given]:
        """One."""
        return [Given()]

    def run(self, names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The picture, changed."""
        return [self._change(given["picture"])]


def _estimate(regressor: NormalRegressor, picture: torch.Tensor) -> torch.Tensor:
    return regressor.estimate(picture, 1, torch.Generator())


@pytest.mark.parametrize(
    ("axes", "expected"),
    [("right up viewer", (0.6, 0.0, 0.8)), ("left up viewer", (-0.6, 0.0, 0.8)), ("right up away", (0.6, 0.0, -0.8))],
)
def test_axes_are_turned_to_ours(axes: str, expected: tuple[float, ...]) -> None:
    normal = torch.tensor([0.6, 0.0, 0.8]).view(1, 3, 1, 1)
    picture = ((normal + 1) / 2).expand(1, 3, 40, 40)
    found = _estimate(NormalRegressor(Echo(lambda given: given), PLAIN, axes), picture)
    assert found.shape == (1, 3, 40, 40)
    assert torch.allclose(found[0, :, 20, 20], torch.tensor(expected), atol=1e-5)


def test_values_outside_0_to_1_are_normals_themselves() -> None:
    longer = np.array([-3.0, 0.0, 4.0], np.float32).reshape(1, 3, 1, 1)
    regressor = NormalRegressor(Echo(lambda given: given * 0 + longer), PLAIN, "right up viewer")
    found = _estimate(regressor, torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(found[1, :, 3, 3], torch.tensor([-0.6, 0.0, 0.8]), atol=1e-6)


def test_another_kind_of_network_is_refused() -> None:
    regressor = NormalRegressor(Echo(lambda given: given[:, :1]), PLAIN, "right up viewer")
    with pytest.raises(PriorError, match="three numbers a pixel"):
        _estimate(regressor, torch.rand(1, 3, 16, 16))


def test_a_folder_is_opened_or_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(RED_LESS_GREEN)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [1.0] * 3}))
    source = PriorSource(str(tmp_path), None)
    assert contents_of_any(source).role == "normals"
    assert load_regressor(source, "right up viewer").image_size == 64
    (tmp_path / "model.onnx").write_bytes(base64.b64decode("AAAA"))
    with pytest.raises(PriorError, match="no ONNX model") as refused:
        load_regressor(source, "right up viewer")
    assert "\n" not in str(refused.value)
