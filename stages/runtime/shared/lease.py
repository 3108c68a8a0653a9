"""The right to compute something, among machines: a lease that its holder renews, and that another takes when the signs of life end.

A lease is the newest of the objects `leases/<name>/<number>`. Taking one means to make the next number, which one alone can; its holder
writes it anew every third of the lease's time. Whoever waits measures by a clock of its own how long it has not changed, so that no two
machines' clocks need agree. A holder that was asleep for longer finds a higher number and knows that it has lost the right; what it
publishes then counts only where it is first.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from stages.runtime.errors import StageError
from stages.runtime.shared.remote import Remote

POLL_S = 1.0
RENEWALS = 3
"""Signs of life in the time of a lease."""


class Lease:
    """A lease that this process holds. lost: another machine has taken it over."""

    def __init__(self, remote: Remote, folder: str, number: int, lease_s: float) -> None:
        self._remote, self._folder, self._number, self._lease_s = remote, folder, number, lease_s
        self.lost = False
        self._over = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._live, name=f"lease-{folder}", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        while not self._over.wait(self._lease_s / RENEWALS):
            # Whatever keeps a sign of life from arriving, the next may arrive.
            with suppress(StageError, OSError):
                if _numbers(self._remote, self._folder)[-1:] != [self._number]:
                    self.lost = True
                    return
                self._count += 1
                self._remote.write(_name(self._folder, self._number), _sign(self._count))

    def release(self) -> None:
        """Give it back: what is left of earlier holders goes too."""
        self._over.set()
        self._thread.join()
        with suppress(StageError, OSError):
            for number in [each for each in _numbers(self._remote, self._folder) if each <= self._number]:
                self._remote.remove(_name(self._folder, number))


@contextmanager
def leased(
    remote: Remote, name: str, *, lease_s: float, needless: Callable[[], bool], give_up: Callable[[], bool]
) -> Iterator[Lease | None]:
    """Hold a lease in the block; None where it became needless while another held it.

    lease_s: without a sign of life for so long, a holder has lost it. Raises BlockingIOError where give_up said so.
    """
    held = _taken(remote, f"leases/{name}", lease_s=lease_s, needless=needless, give_up=give_up)
    try:
        yield held
    finally:
        if held is not None:
            held.release()


def _taken(
    remote: Remote, folder: str, *, lease_s: float, needless: Callable[[], bool], give_up: Callable[[], bool]
) -> Lease | None:
    seen: tuple[int, bytes] | None = None
    since = looked = time.monotonic()
    while True:
        newest = next(reversed(_numbers(remote, folder)), 0)
        now = (newest, _content(remote, folder, newest))
        was_blind = time.monotonic() - looked > POLL_S + lease_s / RENEWALS
        looked = time.monotonic()
        if now != seen or was_blind:
            # While the store was away, its holder could give no sign either: it has the whole time again.
            seen, since = now, looked
        if newest == 0 or time.monotonic() - since > lease_s:
            if needless():
                return None
            if remote.create(_name(folder, newest + 1), _sign(0)):
                if newest == 0 or newest in _numbers(remote, folder):
                    return Lease(remote, folder, newest + 1, lease_s)
                # Its holder lived after all, and has given it back: others may begin at 1 now.
                remote.remove(_name(folder, newest + 1))
                continue
        elif needless():
            return None
        if give_up():
            raise BlockingIOError(f"{folder} is held by {_holder(now[1])}")
        time.sleep(min(POLL_S, lease_s / RENEWALS))


def _numbers(remote: Remote, folder: str) -> list[int]:
    return sorted(int(name) for name in remote.names(folder) if name.isdigit())


def _name(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}"


def _content(remote: Remote, folder: str, number: int) -> bytes:
    if number:
        with suppress(FileNotFoundError):
            return remote.read(_name(folder, number))
    return b""


def _sign(count: int) -> bytes:
    """A sign of life, like no other."""
    holder = f"{socket.gethostname()}, process {os.getpid()}"
    return json.dumps({"holder": holder, "count": count, "token": secrets.token_hex(8)}).encode()


def _holder(content: bytes) -> str:
    try:
        return str(json.loads(content)["holder"])
    except (ValueError, KeyError, TypeError):
        return "another machine"
