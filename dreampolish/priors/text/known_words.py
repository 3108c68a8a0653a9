"""Which words of a prompt a text prior was trained on."""

import re
from collections.abc import Collection

FUNCTION_WORDS = frozenset(
    "a an and at by for from her his in its my of on or our some the their this to two with without your".split()  # noqa: SIM905
)


def content_words(prompt: str) -> list[str]:
    """A prompt's words in lower case, function words left out."""
    return [word for word in re.findall(r"[^\W\d_]+", prompt.lower()) if word not in FUNCTION_WORDS]


_SEVERAL = frozenset(
    "two three four five six seven eight nine ten twelve dozen several many multiple few couple both various".split()  # noqa: SIM905
)
_BEFORE_A_NUMBER = re.compile(r"^(?:an?|the|my|some|exactly)\s+")
_FIRST_WORD = re.compile(r"(\d+|[a-z]+)(?![\w-])")
_OF_ITS_PARTS = re.compile(r"\b(?:with|of|in|on|that|having)\b")
_AND_ANOTHER = re.compile(r"\band\s+(?:an?|another|two)\s+\w")


def asks_for_several(prompt: str) -> bool:
    """Whether a prompt begins with a number of things (`two chairs`, `a few red lamps`) or joins two by `and a`.

    Numbers behind it (`a chest with three drawers`) and in compounds (`a two-seat sofa`) are of one thing.
    """
    text = prompt.lower().strip()
    first = _FIRST_WORD.match(_BEFORE_A_NUMBER.sub("", text))
    counted = first is not None and (first[1] in _SEVERAL or (first[1].isdecimal() and int(first[1]) > 1))
    return counted or _AND_ANOTHER.search(_OF_ITS_PARTS.split(text)[0]) is not None


def unknown_words(prompt: str, vocabulary: Collection[str]) -> list[str]:
    """The content words that are in the vocabulary neither as they stand nor in their singular or plural, in order."""
    return [word for word in content_words(prompt) if not _forms(word) & set(vocabulary)]


def _forms(word: str) -> set[str]:
    return {word, word.removesuffix("s"), word.removesuffix("es"), word + "s"}
