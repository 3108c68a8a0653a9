"""Ctrl-C and SIGTERM: the first asks the computation to checkpoint and end, the second ends it now.

Whoever asks `requested` often (a fit, after every step) ends by itself. Everything else (sampling, baking, publishing) is given
GRACE_S to reach the next stage, which refuses to start, and is then interrupted: the whole ends within half a minute either way.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 12.0
"""From the first signal until what has not ended by itself is interrupted."""
CHECKPOINT_S = 14.0
"""What a fit that has heard the signal is given to write its checkpoint."""
REPEAT_S = 5.0
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """A stop was asked for, and nothing new was begun. Finished stages and written checkpoints remain.

    A KeyboardInterrupt, so that no `except Exception` on the way mistakes it for a failure to go on from.
    """


class StopSignal:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.requested = False

    def check(self, before: str) -> None:
        """Raise StoppedError if a stop was asked for; `before` says what is not begun."""
        if self.requested:
            raise StoppedError(f"stopped before {before}")

    def acknowledge(self) -> None:
        """Say that a requested stop is being seen to: a checkpoint is written and the computation ends."""
        if self.requested and threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, CHECKPOINT_S, REPEAT_S)


Handler = Callable[[int, FrameType | None], None]

_active: tuple[StopSignal, Handler] | None = None
"""The signal of the block that runs, and what hears SIGINT and SIGTERM for it."""


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """Catch SIGINT and SIGTERM inside the block; blocks inside it share its signal.

    Outside the main thread, where Python takes no handlers, nothing is caught but what an outer block has caught.
    """
    global _active
    if threading.current_thread() is not threading.main_thread():
        yield _active[0] if _active is not None else StopSignal()
        return
    if _active is not None:
        with _heard_again(*_active):
            yield _active[0]
        return
    stop = StopSignal()
    before = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGALRM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        # The kernel itself ends the process on the second one, whatever Python is busy with.
        for each in NUMBERS:
            signal.signal(each, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S, REPEAT_S)

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise StoppedError("stopped")

    _active = stop, on_signal
    for number in NUMBERS:
        signal.signal(number, on_signal)
    signal.signal(signal.SIGALRM, on_alarm)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        _active = None


@contextmanager
def _heard_again(stop: StopSignal, on_signal: Handler) -> Iterator[None]:
    """Between an outer block and this one somebody may have taken the signals: Prefect takes SIGTERM for each flow."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    if not stop.requested:
        for number in NUMBERS:
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        # After a stop was asked for, the next signal is the kernel's.
        if not stop.requested:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises StoppedError at once, as Ctrl-C raises KeyboardInterrupt; the second one kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise StoppedError("stopped")

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
