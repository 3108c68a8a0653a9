"""Which words of a prompt a text prior was trained on."""

import re
from collections.abc import Collection

FUNCTION_WORDS = frozenset(
    "a an and at by for from her his in its my of on or our some the their this to two with without your".split()  # noqa: SIM905
)


def content_words(prompt: str) -> list[str]:
    """A prompt's words in lower case, function words left out."""
    return [word for word in re.findall(r"[^\W\d_]+", prompt.lower()) if word not in FUNCTION_WORDS]


def unknown_words(prompt: str, vocabulary: Collection[str]) -> list[str]:
    """The content words that are in the vocabulary neither as they stand nor in their singular or plural, in order."""
    return [word for word in content_words(prompt) if not _forms(word) & set(vocabulary)]


def _forms(word: str) -> set[str]:
    return {word, word.removesuffix("s"), word.removesuffix("es"), word + "s"}
