"""The reference stage: a user's picture, the cut of a drawn one, choosing among the candidates."""

from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.metrics.pictures import mirror_symmetry
from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT
from dreampolish.scene.cutout import OBJECT_RADIUS, on_white
from dreampolish.scene.pictures import write_picture
from schemas.config.reference import ReferenceConfig
from schemas.config.run import PriorsConfig
from stages.guidance.cut_outs import drawn_cutter, users_cutter, users_picture
from stages.reference import _cut
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.keys.key import prior_digests

RED = torch.tensor([0.7, 0.1, 0.1])
CONFIG = ReferenceConfig(size=64)


def _run(folder: Path, **priors: object) -> RunContext:
    settings = PriorsConfig.model_validate(priors)
    return RunContext(run_id="0", store=folder, seed=0, device="cpu", threads=1, checkpoint_interval=1, priors=settings)


@pytest.fixture
def disc() -> Float[Tensor, "64 64 4"]:
    """A red disc of radius 14 in the upper left of a picture, its rim as smooth as a camera's."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    alpha = (14.5 - ((rows - 24) ** 2 + (columns - 20) ** 2).sqrt()).clamp(0, 1)
    return torch.cat([RED.expand(64, 64, 3), alpha[..., None]], dim=-1)


def assert_red_and_centred(rgba: Float[Tensor, "h w 4"], size: int) -> None:
    """In the middle, and of its own colour up to the rim: a pale outline would be the background's."""
    assert rgba.shape == (size, size, 4)
    inside = (rgba[..., 3] > 0.5).nonzero().float()
    assert inside.mean(0).tolist() == pytest.approx([(size - 1) / 2] * 2, abs=1.0)
    assert (rgba[..., :3][rgba[..., 3] > 0.3] - RED).abs().max() < 0.1  # white in the rim would be 0.5 off


@pytest.mark.parametrize("plain", [True, False])
def test_a_users_picture_is_cut_out_centred_and_scaled(disc: Tensor, plain: bool, tmp_path: Path) -> None:
    config = ReferenceConfig(size=64)
    write_picture(tmp_path / "disc.png", on_white(disc) if plain else disc)
    taken = users_picture(tmp_path / "disc.png", config, users_cutter(_run(tmp_path), config)).rgba
    assert_red_and_centred(taken, 64)
    tall = float((taken[..., 3] > 0.5).any(1).sum())
    # A cube's half diagonal becomes the objects' radius.
    assert tall == pytest.approx(64 * (2 * OBJECT_RADIUS / 3**0.5) / (2 * FRAMING_HALF_HEIGHT), abs=1.5)


def test_a_framed_picture_stays_where_it_is(disc: Tensor, tmp_path: Path) -> None:
    write_picture(tmp_path / "disc.png", disc)
    config = ReferenceConfig(size=64, framing="as_is")
    taken = users_picture(tmp_path / "disc.png", config, users_cutter(_run(tmp_path), config)).rgba
    torch.testing.assert_close(taken[..., 3], disc[..., 3], atol=0.01, rtol=0)


def test_a_picture_without_a_plain_background_is_refused_with_the_remedy(tmp_path: Path) -> None:
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    write_picture(tmp_path / "noise.png", noise)
    with pytest.raises(StageError, match="transparent or plain background"):
        users_picture(tmp_path / "noise.png", CONFIG, users_cutter(_run(tmp_path), CONFIG))


def test_a_drawn_picture_is_cut_and_keeps_its_scale_unless_it_is_to_fit(disc: Tensor, tmp_path: Path) -> None:
    rgba, usable = _cut(on_white(disc), CONFIG, drawn_cutter(_run(tmp_path), CONFIG))
    fitted, _ = _cut(on_white(disc), CONFIG.model_copy(update={"drawn_framing": "fit"}), drawn_cutter(_run(tmp_path), CONFIG))
    tall = float((fitted[..., 3] > 0.5).any(1).sum())
    assert tall == pytest.approx(64 * (2 * OBJECT_RADIUS / 3**0.5) / (2 * FRAMING_HALF_HEIGHT), abs=1.5)
    assert usable
    assert_red_and_centred(rgba, 64)
    assert float((rgba[..., 3] > 0.5).any(1).sum()) == pytest.approx(29, abs=2)


def test_a_drawn_picture_of_nothing_is_not_usable(tmp_path: Path) -> None:
    rgba, usable = _cut(torch.ones(64, 64, 3), CONFIG, drawn_cutter(_run(tmp_path), CONFIG))
    assert not usable
    assert rgba.shape == (64, 64, 4)


def test_symmetry_is_the_overlap_with_the_mirror_image() -> None:
    alpha = torch.zeros(8, 8)
    alpha[2:6, 1:5] = 1.0  # mirrored: columns 3..6, two of four shared
    assert mirror_symmetry(alpha) == pytest.approx(2 / 6)
    assert mirror_symmetry((alpha + alpha.flip(1)).clamp(max=1)) == pytest.approx(1.0)
    assert mirror_symmetry(torch.zeros(8, 8)) == 0.0


def test_without_a_matting_model_the_remedy_is_named_and_no_digest_counts(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no matting model: .*model\.onnx.*leave priors\.matting out"):
        drawn_cutter(_run(tmp_path, matting={"source": str(tmp_path)}), CONFIG)
    assert prior_digests(_run(tmp_path), "clip", "matting") == []
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (first,) = prior_digests(_run(tmp_path, matting={"source": str(tmp_path)}), "clip", "matting")
    (tmp_path / "model.onnx").write_bytes(b"others")
    assert prior_digests(_run(tmp_path, matting={"source": str(tmp_path)}), "matting") != [first]


def test_the_clip_that_chooses_counts_and_another_does_not() -> None:
    assert not ReferenceConfig().uses_clip
    assert ReferenceConfig(chosen_by="clip_if_named").uses_clip
