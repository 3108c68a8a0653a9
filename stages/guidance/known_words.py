"""Which words of a prompt the text prior was trained on."""

import json
import re
from pathlib import Path
from typing import Literal

from stages.runtime.context import RunContext
from stages.runtime.errors import StageError

FUNCTION_WORDS = frozenset(
    "a an and at by for from her his in its my of on or our some the their this to two with without your".split()  # noqa: SIM905
)

VOCABULARY = "vocabulary.json"
"""A prior's list of training words, beside its model_index.json; priors without one (Stable Diffusion class) are not checked."""


def check_words(run: RunContext, prompt: str, unknown_words: Literal["refuse", "allow"]) -> list[str]:
    """Sentences about a prompt's words that the prior never saw; empty where all are known.

    With "refuse", a prompt of which no word is known raises StageError.
    """
    path = Path(run.prior_folder(run.priors.text.source)) / VOCABULARY
    if not path.is_file():
        return []
    known = set(json.loads(path.read_text()))
    words = [word for word in re.findall(r"[^\W\d_]+", prompt.lower()) if word not in FUNCTION_WORDS]
    unknown = [word for word in words if not _is_known(word, known)]
    if unknown and len(unknown) == len(words) and unknown_words == "refuse":
        raise StageError(
            f"the text prior has never seen any of: {', '.join(unknown)}",
            None,
            "name a household thing, vehicle, toy or plant, use a larger prior, or --set reference.unknown_words=allow",
        )
    return [f"the text prior has never seen the word{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}"] if unknown else []


def _is_known(word: str, known: set[str]) -> bool:
    """Known as it stands, or in its singular or plural."""
    return bool({word, word.removesuffix("s"), word.removesuffix("es"), word + "s"} & known)
