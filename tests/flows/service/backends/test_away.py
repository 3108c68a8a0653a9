"""A database that is restarted: requests wait and are made again, errors of another kind pass by at once."""

import asyncio
from typing import Any

import pytest

from flows.service.backends import away
from flows.service.backends.away import DatabaseAway


def answered(app: Any, monkeypatch: pytest.MonkeyPatch, answers: list[bool]) -> tuple[int, bytes]:
    """Status and body of one request. answers: whether the database does, look by look; the last one stays."""
    sent: list[Any] = []

    async def answer(self: DatabaseAway) -> bool:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def receive() -> Any:
        return {"type": "http.request", "body": b"asked", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    monkeypatch.setattr(DatabaseAway, "_answers", answer)
    monkeypatch.setattr(away, "LOOK_S", 0.01)
    scope = {"type": "http", "method": "POST", "path": "/api/flow_runs/filter"}
    asyncio.run(DatabaseAway(app, "postgresql+asyncpg://h/d")(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def server(statuses: list[int], bodies: list[bytes]) -> Any:
    """Answers with these statuses in turn and notes what it was asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": statuses.pop(0), "headers": []})
        await send({"type": "http.response.body", "body": b"said"})

    return app


def test_a_request_waits_for_the_database_and_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []
    assert answered(server([500, 200], bodies), monkeypatch, [False, False, True]) == (200, b"said")
    assert bodies == [b"asked", b"asked"]


def test_an_error_with_the_database_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []
    assert answered(server([500], bodies), monkeypatch, [True])[0] == 500
    assert len(bodies) == 1


def test_after_a_while_the_client_is_told_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(away, "HOLD_S", 0.05)
    assert answered(server([500], []), monkeypatch, [False])[0] == 503
