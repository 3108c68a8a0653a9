"""Asking a stage's function for its fingerprint without running it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_only_fingerprint: ContextVar[bool] = ContextVar("_only_fingerprint", default=False)


class FingerprintOnlyError(Exception):
    """What `open_stage` raises, in place of opening the stage, while only its fingerprint is wanted."""

    def __init__(self, fingerprint: str) -> None:
        super().__init__(fingerprint)
        self.fingerprint = fingerprint


@contextmanager
def only_fingerprint() -> Iterator[None]:
    """Inside the block `open_stage` computes nothing and raises FingerprintOnlyError."""
    token = _only_fingerprint.set(True)
    try:
        yield
    finally:
        _only_fingerprint.reset(token)


def answer_probe(fingerprint: str) -> None:
    """Raise FingerprintOnlyError inside `only_fingerprint`; else nothing."""
    if _only_fingerprint.get():
        raise FingerprintOnlyError(fingerprint)
