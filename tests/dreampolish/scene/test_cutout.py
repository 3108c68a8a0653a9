"""Cutting, recentring and the safe reading of pictures, on pictures drawn here."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from dreampolish.scene import cutout, pictures
from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT
from schemas.config.reference import CutoutConfig

SIZES = cutout.CutoutSizes(**CutoutConfig().model_dump())


def square_on(
    background: tuple[float, float, float], size: int = 64, box: tuple[int, int, int, int] = (10, 20, 30, 50)
) -> Tensor:
    picture = torch.tensor(background, dtype=torch.float32).expand(size, size, 3).clone()
    top, left, bottom, right = box
    picture[top:bottom, left:right] = torch.tensor([0.8, 0.1, 0.1])
    return picture


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.2, 0.5, 0.3)])
def test_a_plain_background_is_cut_exactly(background: tuple[float, float, float]) -> None:
    rgba = cutout.cut_from_plain_background(square_on(background), 0.06, SIZES)
    expected = torch.zeros(64, 64)
    expected[10:30, 20:50] = 1
    assert torch.equal(rgba[..., 3], expected)
    assert torch.equal(rgba[10:30, 20:50, :3], square_on(background)[10:30, 20:50])


OWN = torch.tensor([0.8, 0.1, 0.1])


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.2, 0.5, 0.3)])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("blur", [1.0, 2.0])
def test_a_soft_outline_loses_the_backgrounds_colour(background: tuple[float, float, float], shift: float, blur: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(48) - 24.0 + shift, torch.arange(48) - 23.7 + shift, indexing="ij")
    coverage = ((12 - (rows**2 + columns**2).sqrt()) / blur + 0.5).clamp(0, 1)[..., None]
    picture = coverage * OWN + (1 - coverage) * torch.tensor(background)
    rgba = cutout.cut_from_plain_background(picture, 0.06, SIZES)
    seen, was = rgba[..., 3] > 0, (picture - OWN).abs().amax(dim=-1)
    # What is covered by rim_opaque or more keeps the rest of the background's colour.
    left = 1 - SIZES.rim_opaque
    assert float(was[seen].max()) > 0.5
    assert float((rgba[..., :3] - OWN).abs().amax(dim=-1)[seen].max()) < left * 0.9 + 0.01
    assert float((rgba[..., 3:] - coverage)[seen].abs().max()) < left + 0.01


@pytest.mark.parametrize("width", [1, 2, 3, 24])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "background"),
    [
        ((0.05, 0.05, 0.05), (0.97, 0.97, 0.97), (0.5, 0.5, 0.5)),
        ((1.0, 0.9, 0.0), (0.1, 0.2, 0.9), (1.0, 1.0, 1.0)),
        ((0.9, 0.95, 1.0), (0.95, 0.9, 0.9), (1.0, 1.0, 1.0)),
    ],
)
def test_a_sharp_outline_in_colours_of_its_own_stays(
    first: tuple[float, float, float],
    second: tuple[float, float, float],
    background: tuple[float, float, float],
    width: int,
    turned: bool,
) -> None:
    stripes = torch.stack([torch.tensor((first, second)[column // width % 2]) for column in range(24)])
    picture = torch.tensor(background).expand(48, 48, 3).clone()
    picture[12:36, 12:36] = stripes[:, None] if turned else stripes
    rgba = cutout.cut_from_plain_background(picture, 0.06, SIZES)
    assert torch.equal(rgba[12:36, 12:36, :3], picture[12:36, 12:36])
    assert bool((rgba[12:36, 12:36, 3] == 1).all()) and float(rgba[..., 3].sum()) == 24 * 24


def test_a_textured_outline_stays_nearly_whole() -> None:
    picture = square_on((1, 1, 1))
    texture = 0.05 * torch.randn(20, 30, 1, generator=torch.Generator().manual_seed(0))
    picture[10:30, 20:50] = torch.tensor([0.5, 0.3, 0.2]) + texture
    alpha = cutout.cut_from_plain_background(picture, 0.06, SIZES)[10:30, 20:50, 3]
    assert float((alpha < 1).float().mean()) < 0.02 and float(alpha.min()) > 0.6


def test_a_grey_rim_two_pixels_wide_around_black_stays() -> None:
    picture = square_on((1, 1, 1))
    picture[10:30, 20:50] = 0.75
    picture[12:28, 22:48] = 0.0
    assert bool((cutout.cut_from_plain_background(picture, 0.06, SIZES)[10:30, 20:50, 3] == 1).all())


def test_enclosed_background_colour_belongs_to_the_object() -> None:
    picture = square_on((1, 1, 1))
    picture[15:20, 30:35] = 1.0
    assert cutout.cut_from_plain_background(picture, 0.06, SIZES)[17, 32, 3] == 1


@pytest.mark.parametrize("wall", [0.0, 0.8])
def test_what_a_thin_frame_encloses_is_not_eaten(wall: float) -> None:
    picture = torch.ones(48, 48, 3)
    picture[12:36, 12:36] = 0.0
    picture[13:35, 13:35] = 1.0
    picture[12, 20:28] = wall
    assert float(cutout.cut_from_plain_background(picture, 0.06, SIZES)[13:35, 13:35, 3].min()) == 1


def test_a_busy_background_is_refused() -> None:
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(pictures.PictureError, match="not plain.*limit 20%.*RGBA"):
        cutout.cut_from_plain_background(noise, 0.06, SIZES)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_missing_and_overfull_foregrounds_are_refused(value: float) -> None:
    with pytest.raises(pictures.PictureError, match="object covers"):
        cutout.check_foreground(torch.full((8, 8), value))


def test_recentring_fills_the_training_sphere() -> None:
    rgb = square_on((1, 1, 1), 64, (4, 4, 24, 44))  # 40 wide, 20 high
    rgba = cutout.cut_from_plain_background(rgb, 0.06, SIZES)
    out = cutout.recentre(rgba, 256, keep_scale=False)
    rows, columns = torch.nonzero(out[..., 3] > 0.5, as_tuple=True)
    width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    assert rows.float().mean() == pytest.approx(127.5, abs=1) and columns.float().mean() == pytest.approx(127.5, abs=1)
    expected = 2 * cutout.OBJECT_RADIUS * 2 / 6**0.5 / (2 * FRAMING_HALF_HEIGHT) * 256  # box sides 2 : 1 : 1
    assert width == pytest.approx(expected, abs=3) and height == pytest.approx(expected / 2, abs=3)
    torch.testing.assert_close(out[128, 128], torch.tensor([0.8, 0.1, 0.1, 1.0]), atol=1e-5, rtol=0)
    assert cutout.on_white(out)[0, 0].tolist() == [1, 1, 1]


def test_a_thin_object_keeps_the_border() -> None:
    assert cutout.scale_of_box(1.0, 100.0) * 100 == pytest.approx(0.8 * 1.34)


def test_keeping_the_scale_only_moves() -> None:
    rgba = torch.zeros(64, 64, 4)
    rgba[0:20, 0:20] = 1
    out = cutout.recentre(rgba, 64, keep_scale=True)
    assert float(out[..., 3].sum()) == pytest.approx(400, rel=0.02)
    assert out[32, 32, 3] == 1 and out[10, 10, 3] == 0


def test_reading_round_trips_and_refuses(tmp_path: Path) -> None:
    rgba = torch.rand(5, 7, 4, generator=torch.Generator().manual_seed(2))
    pictures.write_picture(tmp_path / "a.png", rgba)
    torch.testing.assert_close(pictures.read_picture(tmp_path / "a.png"), rgba, atol=0.5 / 255 + 1e-6, rtol=0)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("L", (5000, 10)).save(tmp_path / "wide.png")
    Image.new("L", (9, 9)).save(tmp_path / "a.gif")
    for name, words in {"cut.png": "cannot be read", "text.png": "no PNG, JPEG or WebP", "wide.png": "limit is 4096",
                        "a.gif": "no PNG, JPEG or WebP", "none.png": "no picture"}.items():  # fmt: skip
        with pytest.raises(pictures.PictureError, match=words):
            pictures.read_picture(tmp_path / name)


def test_sheets_and_turntables_have_their_size(tmp_path: Path) -> None:
    image = pictures.sheet([("a", torch.zeros(3, 8, 8, 3)), ("b", torch.ones(2, 4, 4, 3))], 2)
    assert image.size == (120 + 3 * 20, 20 + 12)
    assert image.getpixel((125, 5)) == (0, 0, 0)
    pictures.write_turntable(tmp_path / "t.webp", torch.rand(6, 8, 8, 3), 3.0)
    with Image.open(tmp_path / "t.webp") as turntable:
        assert (turntable.n_frames, turntable.size) == (6, (8, 8))


def test_resizing_down_averages() -> None:
    checker = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(4, 4)[None, ..., None]
    assert pictures.resize(checker, 2)[0, ..., 0].mean() == pytest.approx(0.5, abs=1e-6)
    assert pictures.resize(checker, 8) is checker
