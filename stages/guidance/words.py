"""Words: a prompt's, beside those that the text prior was trained on, and what is said of several pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dreampolish.priors.text.known_words import asks_for_several, content_words, unknown_words
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError

VOCABULARY = "vocabulary.json"
"""A prior's list of training words, beside its model_index.json; priors without one (Stable Diffusion class) are not checked."""


def number_notes(prompt: str) -> list[str]:
    """A sentence where a prompt asks for several things: the method makes one closed surface in the middle of all views."""
    several = "the prompt asks for several things; one object is made of it: for each of them a run of its own does better"
    return [several] if asks_for_several(prompt) else []


def check_words(run: RunContext, prompt: str, mode: Literal["refuse", "allow"]) -> list[str]:
    """Sentences about a prompt's words that the prior never saw; empty where all are known.

    With "refuse", a prompt of which no word is known raises StageError.
    """
    path = Path(run.prior_folder(run.priors.text.source)) / VOCABULARY
    if not path.is_file():
        return []
    known = set(json.loads(path.read_text()))
    unknown = unknown_words(prompt, known)
    if unknown and len(unknown) == len(content_words(prompt)) and mode == "refuse":
        raise StageError(
            f"the text prior has never seen any of: {', '.join(unknown)}",
            None,
            "name a household thing, vehicle, toy or plant, use a larger prior, or --set reference.unknown_words=allow",
        )
    return [f"the text prior has never seen the word{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}"] if unknown else []


def turn_notes(given: Sequence[str], found: Sequence[str]) -> list[str]:
    """What to say of poses that were to be refined."""
    changes = [f"{old} to {new}" for old, new in zip(given, found, strict=True) if old != new]
    return [f"poses refined: {'; '.join(changes)}" if changes else "no other poses fit the outlines better"]


def contradiction_notes(poses: Sequence[str], shares: Sequence[float], most: float) -> list[str]:
    """What to say of outlines that no shape explains: nothing up to a share `most` of each."""
    worst = max(range(len(shares)), key=shares.__getitem__)
    if shares[worst] <= most:
        return []
    return [
        f"the pictures contradict each other: no shape explains {shares[worst]:.0%} of the outline from {poses[worst]}; "
        "look at their poses, or let --refine-poses do so"
    ]
