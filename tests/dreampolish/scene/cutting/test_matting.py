"""Matting by an ONNX model, on backgrounds that a flood from the border cannot cut."""

import json
from pathlib import Path

import pytest
import torch

from dreampolish.scene.cutting.matting import Matting
from dreampolish.scene.pictures import PictureError
from tests.support.onnx_file import RED_LESS_GREEN

pytest.importorskip("onnxruntime")

SIDE = 128


def _backgrounds() -> dict[str, torch.Tensor]:
    """What text-to-image models draw behind an object."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    vignette = 0.75 - 0.6 * ((columns - 0.5) ** 2 + (rows - 0.5) ** 2)
    shadow = 1 - 0.45 * torch.exp(-(((rows - 0.8) / 0.05) ** 2 + ((columns - 0.5) / 0.3) ** 2))
    floor = torch.where(rows < 0.7, 0.92, 0.55)
    return {name: value[..., None].expand(-1, -1, 3) for name, value in (("v", vignette), ("s", shadow), ("f", floor))}


@pytest.fixture
def model(tmp_path: Path) -> Matting:
    """A matting folder whose model finds red."""
    (tmp_path / "model.onnx").write_bytes(RED_LESS_GREEN)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [1.0] * 3}))
    return Matting(tmp_path)


@pytest.mark.parametrize("name", ["v", "s", "f"])
def test_objects_are_cut_from_shaded_backgrounds(model: Matting, name: str) -> None:
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[40:100, 32:96] = True
    red = torch.tensor([0.7, 0.1, 0.1])
    rgba = model.cut(torch.where(inside[..., None], red, _backgrounds()[name]))
    found = rgba[..., 3] > 0.5
    assert float((found & inside).sum() / (found | inside).sum()) > 0.95
    # No colour of the background is left in the rim.
    assert float((rgba[..., :3][rgba[..., 3] > 0.05] - red).abs().max()) < 1e-6


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"model\.onnx is not there"):
        Matting(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(PictureError, match=r"no library here builds ISNet or BiRefNet .* torch\.onnx\.export") as of_tensors:
        Matting(tmp_path)
    assert "\n" not in str(of_tensors.value)
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(PictureError, match="no ONNX model") as caught:
        Matting(tmp_path)
    assert "\n" not in str(caught.value)
