"""Waiting for a Prefect server, or its database, that gives no answer for a while: restarted, both find everything as it was."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows.runs.console import say
from flows.service.processes import is_going_down, read_service
from stages.runtime.signals import StoppedError

OUTAGE_S = 900.0
"""After which a server that gives no answer is an error."""


class Patience:
    """Waits for a Prefect server, or its database, that gives no answer for a while."""

    def __init__(self, store: Path) -> None:
        self.store, self.since, self.told = store, time.monotonic(), False
        self._own = read_service(store, "server") is not None

    @contextmanager
    def waits_for_an_answer(self) -> Iterator[None]:
        """Pass over what the block could not ask. Raises StoppedError where `down` has begun or the server is gone, and after
        OUTAGE_S what Prefect's client raises."""
        if is_going_down(self.store):
            raise StoppedError("stopped by dreampolish down")
        try:
            yield
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if refused or time.monotonic() - self.since > OUTAGE_S:
                raise
            if is_going_down(self.store) or (self._own and read_service(self.store, "server") is None):
                raise StoppedError("stopped: the Prefect server is gone") from error
            if not self.told:
                say("the Prefect server gives no answer; waiting for it")
                self.told = True
        else:
            self.since, self.told = time.monotonic(), False
