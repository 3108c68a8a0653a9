"""Opaque pictures cut out of all kinds of backgrounds, against their true outlines."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from dreampolish.scene.cutout import CutoutSizes
from dreampolish.scene.cutting.opaque import Cutout, cut_from_background
from dreampolish.scene.pictures import PictureError
from schemas.config.reference import ReferenceConfig
from tests.dreampolish.scene.cutting.drawn import (
    Drawn,
    Paint,
    ball,
    bust,
    chair,
    cube,
    eight_bits,
    flat,
    glint,
    horizon,
    lit,
    mug,
    noisy,
    over,
    pair,
    places,
    red_chair,
    ring,
    saved_as,
    shaded,
    slope,
    vignette,
    wheel,
    white_cube,
)

SIZE = 128
CONFIG = ReferenceConfig()
SIZES = CutoutSizes(**CONFIG.cutout.model_dump())
WHITE, RED, BLUE, GREY = flat((1, 1, 1)), (0.78, 0.16, 0.16), (0.2, 0.35, 0.6), (0.5, 0.5, 0.5)


def cut(picture: Drawn) -> Cutout:
    shown = torch.ones(picture.true.shape, dtype=torch.bool)
    rgb = torch.from_numpy(picture.rgba[..., :3]).float()
    return cut_from_background(rgb, shown, CONFIG.background_tolerance, SIZES)


def under_chair(ground: Paint, depth: float = 0.4, blur: float = 0.5) -> Paint:
    return shaded(ground, (0.56, 0.85), (0.3, 0.07), depth, blur)


def drawn(shape: Callable, own: Paint, ground: Paint, blur: float = 0.0) -> Drawn:
    return over(SIZE, shape, own, ground, blur)


PLAIN: dict[str, Callable[[], Drawn]] = {
    "red on white": lambda: drawn(chair, red_chair, WHITE),
    "red on blue": lambda: drawn(chair, red_chair, flat(BLUE)),
    "red on green": lambda: drawn(ball, lit((0.9, 0.2, 0.1), 0.45), flat((0.1, 0.7, 0.2))),
    "blue on grey": lambda: drawn(ball, lit((0.3, 0.5, 0.9), 0.45), flat((0.6, 0.6, 0.6))),
    "cream on white": lambda: drawn(chair, flat((0.98, 0.96, 0.9)), WHITE),
    "dark on dark": lambda: drawn(chair, flat((0.11, 0.11, 0.13)), flat((0.03, 0.03, 0.04))),
    "noisy dark on dark": lambda: noisy(drawn(chair, flat((0.14, 0.13, 0.13)), flat((0.04, 0.04, 0.05))), 0.012),
    "noise": lambda: noisy(drawn(chair, red_chair, flat((0.75, 0.75, 0.75))), 0.03),
    "strong noise": lambda: noisy(drawn(chair, red_chair, flat((0.7, 0.72, 0.7))), 0.07),
    "gradient": lambda: drawn(chair, red_chair, slope((0.95, 0.95, 1), (0.6, 0.65, 0.75), 0)),
    "vignette": lambda: drawn(chair, red_chair, vignette((0.9, 0.9, 0.9), 0.4, (0.5, 0.5))),
    "vignette off the middle": lambda: drawn(ball, lit((0.8, 0.3, 0.3), 0.45), vignette((0.8, 0.85, 0.9), 0.6, (0.4, 0.35))),
    "haze": lambda: noisy(
        drawn(chair, lambda x, y: 0.35 * red_chair(x, y) + 0.55, slope((0.93, 0.93, 0.94), (0.86, 0.87, 0.88), 0)), 0.006
    ),
    "JPEG of quality 20": lambda: saved_as(drawn(chair, red_chair, WHITE), "JPEG", 20),
    "JPEG of quality 20 on grey": lambda: saved_as(drawn(ball, lit(BLUE, 0.45), flat((0.7, 0.7, 0.72))), "JPEG", 20),
    "blurred outline": lambda: drawn(ball, lit((0.7, 0.3, 0.2), 0.45), WHITE, 1.0),
    "highlight": lambda: drawn(ball, glint, WHITE),
    "standing on the lower side": lambda: drawn(bust, flat((0.5, 0.3, 0.25)), flat((0.9, 0.9, 0.92))),
}
"""Cut right, without a word."""

ASSUMED: dict[str, tuple[Callable[[], Drawn], str]] = {
    "soft shadow": (lambda: drawn(chair, red_chair, under_chair(WHITE)), "soft shadow"),
    "soft shadow of a grey object": (lambda: drawn(chair, flat(GREY), under_chair(WHITE)), "soft shadow"),
    "soft shadow on blue": (lambda: drawn(chair, red_chair, under_chair(flat((0.35, 0.5, 0.7)))), "soft shadow"),
    "soft shadow of a black object": (lambda: drawn(chair, flat((0.1, 0.1, 0.1)), under_chair(WHITE, 0.6)), "soft shadow"),
    "noisy soft shadow": (
        lambda: noisy(
            drawn(ball, lit((0.2, 0.6, 0.3), 0.45), shaded(flat((0.9, 0.9, 0.88)), (0.56, 0.8), (0.34, 0.06), 0.5, 0.5)), 0.012
        ),
        "soft shadow",
    ),
    "wide shadow": (
        lambda: drawn(ball, lit((0.9, 0.6, 0.1), 0.45), shaded(WHITE, (0.5, 0.78), (0.45, 0.16), 0.35, 0.8)),
        "soft shadow",
    ),
    "soft shadow in a JPEG": (lambda: saved_as(drawn(chair, red_chair, under_chair(WHITE)), "JPEG", 20), "soft shadow"),
    "white cube on white": (lambda: drawn(cube, white_cube, WHITE), "outline hardly differs"),
    "white ball on white": (lambda: drawn(ball, lit((0.97, 0.97, 0.97), 0.75), WHITE), "shades of the background"),
    "noisy white ball": (
        lambda: noisy(drawn(ball, lit((0.9, 0.9, 0.9), 0.8), flat((0.97, 0.97, 0.97))), 0.008),
        "shades of the background",
    ),
    "ring": (lambda: drawn(ring, flat((0.8, 0.6, 0.1)), WHITE), "an enclosed area .* became holes"),
    "noisy ring": (lambda: noisy(drawn(ring, flat((0.8, 0.6, 0.1)), flat((0.6, 0.65, 0.7))), 0.02), "became holes"),
    "ring on a gradient": (
        lambda: drawn(ring, flat((0.3, 0.2, 0.5)), slope((1, 0.95, 0.9), (0.7, 0.75, 0.85), 0)),
        "became holes",
    ),
    "a mug's handle": (
        lambda: drawn(mug, flat((0.2, 0.5, 0.4)), slope((0.9, 0.8, 0.7), (0.5, 0.5, 0.55), 0.5)),
        "became holes",
    ),
    "mug in a noisy JPEG": (
        lambda: saved_as(noisy(drawn(mug, flat((0.2, 0.45, 0.3)), flat((0.93, 0.93, 0.93))), 0.015), "JPEG", 60),
        "holes",
    ),
    "thin parts": (lambda: drawn(wheel, flat((0.1, 0.15, 0.5)), WHITE), "6 enclosed areas"),
    "thin parts on a gradient": (
        lambda: drawn(wheel, flat((0.5, 0.1, 0.1)), slope((0.9, 0.9, 0.95), (0.6, 0.65, 0.7), 0)),
        "enclosed",
    ),
    "two objects": (lambda: drawn(pair, flat(RED), WHITE), "2 parts that do not touch"),
    "floor and wall": (
        lambda: drawn(chair, red_chair, horizon((0.85, 0.85, 0.9), (0.6, 0.5, 0.4), 0, 1e-6)),
        "floor and a wall",
    ),
    "tilted floor": (
        lambda: noisy(drawn(ball, lit((0.2, 0.6, 0.3), 0.45), horizon((0.8, 0.8, 0.75), (0.5, 0.5, 0.52), 0.15, 1e-6)), 0.01),
        "floor and a wall",
    ),
    "sweep": (lambda: drawn(chair, red_chair, horizon((0.95, 0.95, 0.95), (0.75, 0.75, 0.75), 0, 0.25)), "floor and a wall"),
    "shadow on a floor": (
        lambda: drawn(chair, red_chair, under_chair(horizon((0.85, 0.85, 0.9), (0.65, 0.6, 0.55), 0, 1e-6))),
        "soft shadow",
    ),
}
"""Cut right, with what was assumed."""

DOUBTED: dict[str, tuple[Callable[[], Drawn], str]] = {
    "hard shadow": (lambda: drawn(chair, red_chair, under_chair(WHITE, blur=1e-3)), "may be a hard shadow"),
    "hard shadow of a grey object": (lambda: drawn(chair, flat((0.4, 0.4, 0.4)), under_chair(WHITE, 0.3, 1e-3)), "hard shadow"),
    "white stripes on white": (
        lambda: drawn(chair, lambda x, y: np.where(np.sin(60 * y)[..., None] > 0, RED, (1.0, 1, 1)), WHITE),
        "parts that do not touch",
    ),
    "white label on white": (
        lambda: drawn(
            mug, lambda x, y: np.where((np.abs(x - 0.46) + np.abs(y - 0.5) < 0.12)[..., None], (1.0, 1, 1), BLUE), WHITE
        ),
        "give an RGBA picture if the object is so coloured",
    ),
    "clear glass": (
        lambda: drawn(
            mug,
            lambda x, y: np.where((np.maximum(np.abs(x - 0.46), np.abs(y - 0.52)) < 0.15)[..., None], (1.0, 1, 1), BLUE),
            WHITE,
        ),
        "became holes",
    ),
    "wood": (lambda: on_wood(), "small pieces"),
}
"""Not cut right, as the picture does not tell; it is said."""


def on_wood() -> Drawn:
    x, y = places(SIZE)
    grain = 0.06 * np.sin(80 * y + 3 * np.sin(6 * x))
    grain += ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 0.25, (SIZE, SIZE)), (1, 9))
    picture = drawn(chair, red_chair, WHITE)
    cover = picture.true[..., None]
    rgb = cover * picture.rgba[..., :3] + (1 - cover) * (np.array((0.65, 0.5, 0.35)) + grain[..., None])
    return Drawn(np.dstack([eight_bits(rgb), np.ones((SIZE, SIZE))]), picture.true)


@pytest.mark.parametrize("name", PLAIN)
def test_what_stands_out_is_cut_right_without_a_word(name: str) -> None:
    picture = PLAIN[name]()
    found = cut(picture)
    assert picture.overlap(found.rgba[..., 3].numpy()) >= 0.97
    assert found.notes == ()


@pytest.mark.parametrize("name", ASSUMED)
def test_what_takes_an_assumption_is_cut_right_and_says_it(name: str) -> None:
    picture, said = ASSUMED[name][0](), ASSUMED[name][1]
    found = cut(picture)
    assert picture.overlap(found.rgba[..., 3].numpy()) >= 0.97
    assert any(re.search(said, note) for note in found.notes), found.notes


@pytest.mark.parametrize("name", DOUBTED)
def test_what_cannot_be_told_apart_is_said(name: str) -> None:
    picture, said = DOUBTED[name][0](), DOUBTED[name][1]
    assert any(re.search(said, note) for note in cut(picture).notes)


def test_an_object_of_the_backgrounds_colour_and_a_busy_ground_are_refused_with_a_remedy() -> None:
    with pytest.raises(PictureError, match="no object stands out.*RGBA"):
        cut(noisy(drawn(chair, flat((0.045, 0.045, 0.05)), flat((0.04, 0.04, 0.045))), 0.01))
    noise = np.random.default_rng(5).random((SIZE, SIZE, 3))
    with pytest.raises(PictureError, match="not plain.*limit 20%.*RGBA.*matting model"):
        cut(
            Drawn(
                np.dstack([ndimage.gaussian_filter(noise, (3, 3, 0)) * 4 - 1.5, np.ones((SIZE, SIZE))]), np.ones((SIZE, SIZE))
            )
        )


def test_the_rim_loses_the_backgrounds_colour() -> None:
    picture = drawn(chair, flat(RED), flat(BLUE))
    rgba = cut(picture).rgba
    seen = rgba[..., 3] > 0.2
    assert float((rgba[..., :3][seen] - torch.tensor(RED)).abs().max()) < 0.15
    torch.testing.assert_close(rgba[..., 3], torch.from_numpy(picture.true).float(), atol=0.2, rtol=0)
