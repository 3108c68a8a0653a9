"""Who is told that kernels have to be compiled: the caller chooses, the engine prints nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_say: ContextVar[Callable[[str], None] | None] = ContextVar("say", default=None)


@contextmanager
def announcing(say: Callable[[str], None]) -> Iterator[None]:
    """Within, and in this thread: `say` gets one line when kernels have to be compiled."""
    token = _say.set(say)
    try:
        yield
    finally:
        _say.reset(token)


def announce(words: str) -> None:
    """Tell whoever listens."""
    say = _say.get()
    if say is not None:
        say(words)
