"""Pictures with alpha: what of it is the object."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from dreampolish.scene.cutout import CutoutSizes
from dreampolish.scene.cutting.opaque import Cutout
from dreampolish.scene.cutting.users import by_matting, cut_out, from_background, says_nothing
from dreampolish.scene.pictures import PictureError
from schemas.config.reference import ReferenceConfig
from tests.dreampolish.scene.cutting.drawn import (
    Drawn,
    ball,
    box,
    bust,
    chair,
    flat,
    lit,
    mug,
    over,
    places,
    red_chair,
    with_alpha,
)

SIZE = 128
OPAQUE = from_background(0.1, CutoutSizes(**ReferenceConfig().cutout.model_dump()), 128)
CHAIR = with_alpha(SIZE, chair, red_chair)


def cut(rgba: np.ndarray) -> Cutout:
    return cut_out(torch.from_numpy(rgba).float(), OPAQUE)


def changed(picture: Drawn, alpha: np.ndarray) -> Drawn:
    return Drawn(np.dstack([picture.rgba[..., :3], alpha]), picture.true)


def veiled() -> Drawn:
    return changed(CHAIR, np.maximum(CHAIR.true, 3 / 255))


def specked() -> Drawn:
    alpha = CHAIR.true.copy()
    alpha[2:4, 2:5] = alpha[120:122, 100:103] = 0.85
    return changed(CHAIR, alpha)


def with_shadow(blur: float = 0.5) -> Drawn:
    x, y = places(SIZE)
    away = np.sqrt(((x - 0.55) / 0.3) ** 2 + ((y - 0.85) / 0.07) ** 2)
    shadow = 0.5 * np.clip((1 + blur - away) / (2 * blur), 0, 1)
    alpha = CHAIR.true + (1 - CHAIR.true) * shadow
    share = (CHAIR.true / np.maximum(alpha, 1e-6))[..., None]
    return Drawn(np.dstack([share * CHAIR.rgba[..., :3] + (1 - share) * 0.08, alpha]), CHAIR.true)


def glass() -> Drawn:
    picture = with_alpha(SIZE, mug, flat((0.6, 0.75, 0.85)))
    return changed(picture, np.where(box(*places(SIZE), (0.3, 0.3), (0.62, 0.7)), 0.35, 1) * picture.true)


def multiplied() -> Drawn:
    picture = with_alpha(SIZE, ball, lit((0.7, 0.8, 0.3), 0.45))
    alpha = ndimage.gaussian_filter(picture.true, 1.0)
    own = lit((0.7, 0.8, 0.3), 0.45)(*places(SIZE))
    return Drawn(np.dstack([own * alpha[..., None], alpha]), alpha)


def cornered() -> Drawn:
    picture, mask = over(SIZE, chair, red_chair, flat((0.95, 0.95, 0.96))), Image.new("L", (4 * SIZE, 4 * SIZE))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * SIZE - 1, 4 * SIZE - 1), 40, fill=255)
    alpha = np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.BOX), float) / 255
    return Drawn(np.dstack([picture.rgba[..., :3] * (alpha[..., None] > 0), alpha]), picture.true)


def nearly_opaque() -> Drawn:
    picture = over(SIZE, chair, red_chair, flat((1, 1, 1)))
    return changed(picture, np.full((SIZE, SIZE), 254 / 255))


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (veiled, r"faint alpha \(1.2%\)"),
        (specked, "2 specks"),
        (with_shadow, "half-transparent shadow"),
        (glass, "translucent parts .* taken for solid"),
        (multiplied, "multiplied by alpha were divided"),
        (cornered, "corners were taken for those of a screenshot"),
        (nearly_opaque, "99.6% and more was taken for opaque"),
    ],
)
def test_alpha_that_is_not_the_objects_is_seen_through_and_said(drawn: Callable[[], Drawn], said: str) -> None:
    picture = drawn()
    found = cut(picture.rgba)
    assert picture.overlap(found.rgba[..., 3].numpy()) >= 0.97
    assert len(found.notes) == 1 and re.search(said, found.notes[0])


def test_clean_alpha_stays_to_the_bit_without_a_word() -> None:
    rgba = torch.from_numpy(CHAIR.rgba).float()
    found = cut_out(rgba, OPAQUE)
    assert torch.equal(found.rgba, rgba) and found.notes == ()


def test_glass_has_the_colour_that_it_has_over_white() -> None:
    rgba = cut(glass().rgba).rgba
    expected = 0.35 * torch.tensor([0.6, 0.75, 0.85]) + 0.65
    torch.testing.assert_close(rgba[64, 56], torch.cat([expected, torch.ones(1)]), atol=0.005, rtol=0)


def test_divided_colours_are_the_objects_own() -> None:
    picture = multiplied()
    rgba = cut(picture.rgba).rgba.numpy()
    rim = (picture.true > 0.2) & (picture.true < 0.8)
    own = lit((0.7, 0.8, 0.3), 0.45)(*places(SIZE))
    np.testing.assert_allclose(rgba[rim][:, :3], own[rim], atol=1e-5)


def test_dark_glass_that_ends_sharply_is_no_shadow() -> None:
    picture = with_shadow(blur=1e-6)
    assert not any("shadow" in note for note in cut(picture.rgba).notes)


def test_a_matting_model_cuts_only_what_alpha_does_not_tell() -> None:
    asked = []

    def matte(rgb: torch.Tensor) -> torch.Tensor:
        asked.append(rgb)
        return torch.cat([rgb, (rgb[..., 1:2] < 0.5).float()], dim=-1)

    rgba = torch.from_numpy(CHAIR.rgba).float()
    assert not says_nothing(rgba[..., 3]) and torch.equal(cut_out(rgba, by_matting(matte)).rgba, rgba) and not asked
    corners = torch.from_numpy(cornered().rgba).float()
    assert says_nothing(corners[..., 3])
    assert cut_out(corners, by_matting(matte)).rgba[0, 0, 3] == 0 and len(asked) == 1  # black, but not shown


def test_pictures_of_a_few_pixels_and_of_nothing_are_refused() -> None:
    with pytest.raises(PictureError, match="1x1 pixels, the least is 16 a side"):
        cut(np.ones((1, 1, 4)))
    with pytest.raises(PictureError, match="no object stands out"):
        cut(np.zeros((64, 64, 4)))


def test_a_large_picture_is_shrunk_before_it_is_cut() -> None:
    large = np.repeat(np.repeat(nearly_opaque().rgba, 6, axis=0), 6, axis=1)[:, :700]
    found = cut(large)
    assert found.rgba.shape == (512, 467, 4)


def test_an_object_that_ends_at_the_side_is_said_to_be_cut_off() -> None:
    picture = over(SIZE, bust, flat((0.5, 0.3, 0.25)), flat((0.9, 0.9, 0.92)))
    assert cut(picture.rgba).notes == ("the object is cut off at the picture's side; it is taken to end there",)
