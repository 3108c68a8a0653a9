"""The depth prior on a tiny real estimator."""

import json
from pathlib import Path

import pytest
import torch

from dreampolish.priors.estimators.depth import load_depth_prior
from dreampolish.priors.folders.source import PriorError, PriorSource
from tests.support.tiny_priors import write_depth


@pytest.mark.parametrize(("kind", "sign"), [("relative", -1), ("metric", 1)])
def test_depth_grows_away_from_the_viewer(tmp_path: Path, kind: str, sign: int) -> None:
    network = write_depth(tmp_path, kind)
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = load_depth_prior(PriorSource(str(tmp_path), None)).estimate(images)
    with torch.no_grad():
        expected = network(pixel_values=(images - 0.5) / 0.25).predicted_depth
    assert found.shape == (2, 28, 28)
    torch.testing.assert_close(found, sign * expected, atol=1e-5, rtol=1e-4)


def test_what_is_no_depth_estimator_is_refused_in_one_line(tmp_path: Path) -> None:
    write_depth(tmp_path, "relative")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "fusion_hidden_size": 16}))
    with pytest.raises(PriorError, match="other tensors|lacks") as caught:
        load_depth_prior(PriorSource(str(tmp_path), None))
    assert "\n" not in str(caught.value)
