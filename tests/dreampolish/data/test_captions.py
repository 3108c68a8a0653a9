"""Nouns, colour words and the order of captions."""

import pytest
import torch

from dreampolish.data.captions import color_word, compose_caption, is_named_wooden, noun_from_name, random_caption
from dreampolish.data.vocabulary import TARGET_COLORS


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("Iron bed", "iron bed"),
        ("Concept Sedan 02", "car"),
        ("Sofa 3 seats", "sofa"),
        ("Wooden table", "table"),
        ("Oak chair", "chair"),
        ("Female", "woman"),
        ("Black table", "table"),
        ("Captain's bed", "captain's bed"),
        ("TV 16:9", "TV"),
    ],
)
def test_nouns_are_clean(name: str, noun: str) -> None:
    assert noun_from_name(name) == noun


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((0.8, 0.1, 0.1), "red"),
        ((0.95, 0.85, 0.1), "yellow"),
        ((0.1, 0.5, 0.2), "green"),
        ((0.1, 0.2, 0.7), "blue"),
        ((0.05, 0.05, 0.06), "black"),
        ((0.95, 0.95, 0.94), "white"),
        ((0.5, 0.5, 0.5), "grey"),
        ((0.45, 0.28, 0.15), "brown"),
        ((0.85, 0.77, 0.62), "beige"),
        ((0.6, 0.8, 0.1), None),
    ],
)
def test_color_words(rgb: tuple[float, float, float], word: str | None) -> None:
    assert color_word(rgb) == word


def test_target_colors_are_called_by_their_own_word_or_by_none() -> None:
    accepted = {"wooden": {"brown", "beige", None}}
    for word, shades in TARGET_COLORS.items():
        for shade in shades:
            assert color_word(shade) in accepted.get(word, {word, None})


def test_captions_read_naturally() -> None:
    assert compose_caption("armchair", "red", "side view") == "a red armchair, side view"
    assert compose_caption("office chair", None, "front view") == "an office chair, front view"
    assert compose_caption("scissors", "orange", None) == "orange scissors"
    assert compose_caption("armchair", None, None) == "an armchair"


def test_random_captions_vary_but_name_the_object() -> None:
    generator = torch.Generator().manual_seed(0)
    found = {random_caption(["sofa", "couch"], "red", 90.0, 10.0, generator) for _ in range(200)}
    assert {"a red sofa, side view", "a red couch, side view", "a red sofa"} <= found
    assert all(("sofa" in caption) != ("couch" in caption) for caption in found)


def test_names_of_wood() -> None:
    assert is_named_wooden("Wooden alder table")
    assert not is_named_wooden("Glass table")


def test_captions_tell_a_view_from_straight_in_front_from_others() -> None:
    generator = torch.Generator().manual_seed(3)

    def views(azimuth: float, elevation: float) -> set[str]:
        found = {random_caption(["sofa"], None, azimuth, elevation, generator) for _ in range(60)}
        return {caption.partition(", ")[2] for caption in found} - {""}

    assert views(-6.0, 10.0) == views(354.0, 19.0) == {"straight front view"}
    assert views(20.0, 10.0) == views(0.0, 40.0) == {"front view"}
    assert views(180.0, 10.0) == {"back view"}
