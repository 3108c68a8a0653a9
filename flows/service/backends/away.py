"""Requests that meet a database that is away, for it is restarted: they wait, and are made again once it is back.

Prefect answers 500 when its database takes no connection, and its clients give up at once: runs would crash and a batch end.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from stages.runtime.tracking.messages import write_line

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FAILED = (500, 503)
HOLD_S = 45.0
"""Less than a client waits for an answer, 60 s; then it is told to ask again, which Prefect's does."""
LOOK_S = 1.0
JUST_NOW_S = 30.0
"""For which an answer of 500 may still come from the outage."""
REPEATS = 3


class DatabaseAway:
    """An ASGI application that holds requests while the database takes no connection.

    url: SQLAlchemy's address of the database, by asyncpg.
    """

    def __init__(self, app: "ASGIApp", url: str) -> None:
        self.app, self.url = app, url
        self._seen_away = -JUST_NOW_S

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request of the API, again after an outage; everything else passes by."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            await self.app(scope, receive, send)
            return
        body, until = await whole_body(receive), time.monotonic() + HOLD_S
        for repeat in range(REPEATS + 1):
            answer = await whole_answer(self.app, scope, body=body, later=receive)
            if answer[0].get("status") not in FAILED or repeat == REPEATS or not await self._was_away(until):
                break
        if answer[0].get("status") in FAILED and time.monotonic() >= until:
            answer = [
                {"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"1")]},
                {"type": "http.response.body", "body": b"the database is away\n"},
            ]
        for message in answer:
            await send(message)

    async def _was_away(self, until: float) -> bool:
        """Wait for the database, at most until then; False where it had not been away."""
        away = False
        while time.monotonic() < until and not await self._answers():
            if not away:
                write_line("the database gives no answer; requests wait for it", "error")
            away, self._seen_away = True, time.monotonic()
            await asyncio.sleep(LOOK_S)
        return time.monotonic() < until and (away or time.monotonic() - self._seen_away < JUST_NOW_S)

    async def _answers(self) -> bool:
        import asyncpg

        try:
            connection = await asyncpg.connect(self.url.replace("+asyncpg", "", 1), timeout=5)
            await connection.close()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True


async def whole_answer(app: "ASGIApp", scope: "Scope", *, body: bytes, later: "Receive") -> "list[Message]":
    """The messages of an application's whole response. later: tells whether the client is still there."""
    messages: list[Message] = []
    given = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> "Message":
        first = next(given, None)
        return await later() if first is None else first

    async def send(message: "Message") -> None:
        messages.append(message)

    await app(dict(scope), receive, send)
    return messages


async def whole_body(receive: "Receive") -> bytes:
    """A request's body."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = bool(message.get("more_body"))
    return b"".join(parts)
