"""Pictures at their own scales, brought to one."""

import pytest
import torch

from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT
from dreampolish.scene.cutout import OBJECT_RADIUS, check_whole, scale_of_box
from dreampolish.scene.framing import Window, box_of, common_windows
from dreampolish.scene.pictures import PictureError


def test_one_level_picture_is_framed_as_it_is_alone() -> None:
    (window,) = common_windows([(10.0, 20.0, 50.0, 100.0)], [0.0], [0.0])
    assert window.center == (30.0, 60.0)
    assert window.side == pytest.approx(2 * FRAMING_HALF_HEIGHT / scale_of_box(40.0, 80.0))


def test_level_pictures_get_one_height_whatever_their_own_scale() -> None:
    boxes = [(10.0, 20.0, 50.0, 100.0), (0.0, 0.0, 40.0, 40.0), (0.0, 0.0, 80.0, 160.0)]
    front, side, back = common_windows(boxes, [0.0, 90.0, 180.0], [0.0, 0.0, 0.0])
    assert 80 / front.side == pytest.approx(40 / side.side) == pytest.approx(160 / back.side)
    # A box 40 wide, 80 deep (the side's 40 doubled) and 80 high.
    assert 0.5 * (40**2 + 80**2 + 80**2) ** 0.5 / front.side * 2 * FRAMING_HALF_HEIGHT == pytest.approx(OBJECT_RADIUS, rel=0.02)


def test_a_picture_from_above_is_as_high_as_its_box_looks_from_there() -> None:
    # 2 wide, 1 deep, 1 high; at 30 degrees: front cos 30 + sin 30, side cos 30 + 2 sin 30.
    rise = torch.deg2rad(torch.tensor(30.0))
    front_high, side_high = float(rise.cos() + rise.sin()), float(rise.cos() + 2 * rise.sin())
    boxes = [(0.0, 0.0, 2.0, front_high), (0.0, 0.0, 3.0, 3 * side_high)]  # the side at three times the scale
    front, side = common_windows(boxes, [0.0, 90.0], [30.0, 30.0])
    assert side.side / front.side == pytest.approx(3.0, rel=0.02)


def test_a_window_moves_and_scales_what_it_shows() -> None:
    picture = torch.zeros(64, 64, 4)
    picture[20:30, 20:30] = 1.0
    window = Window((32.0, 32.0), 64.0)
    assert box_of(window.of(picture, 64)[..., 3]) == (20, 20, 30, 30)
    assert box_of(window.moved(2.0, (0.25, 0.125)).of(picture, 64)[..., 3]) == (24, 16, 44, 36)


def test_an_object_that_is_cut_off_is_named_and_a_trimmed_one_passes() -> None:
    alpha = torch.zeros(32, 32)
    alpha[10:32, 8:24] = 1.0
    with pytest.raises(PictureError, match="cut off at the bottom"):
        check_whole(alpha)
    check_whole(alpha[10:, 8:24])
    check_whole(alpha.roll(-5, 0))
