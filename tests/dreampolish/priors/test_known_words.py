"""What a prompt's words say before any prior is asked."""

import pytest

from dreampolish.priors.text.known_words import asks_for_several


@pytest.mark.parametrize(
    "prompt",
    [
        "two chairs",
        "2 red chairs",
        "A couple of lamps",
        "several plants",
        "a dozen eggs",
        "a chair and a table",
        "a red and a blue cup",
    ],
)
def test_prompts_for_several_things(prompt: str) -> None:
    assert asks_for_several(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        *(
            "a chair",
            "1 chair",
            "one chair",
            "a two-seat sofa",
            "a chest with three drawers",
            "a black and white cow",
            "3d printer",
        ),
        *("a table with a lamp and a vase", "a pair of scissors", "a twofold screen", "椅子", ""),
    ],
)
def test_prompts_for_one_thing(prompt: str) -> None:
    assert not asks_for_several(prompt)
