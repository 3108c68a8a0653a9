"""Flow runs created at the same time on SQLite: one behind the other, again while the database is busy, and none twice."""

import asyncio
from typing import Any

import pytest

from flows.service import apps
from flows.service.apps import ATTEMPTS, CreationQueue, creates_a_run


class Database:
    """Answers like Prefect: 503 to whoever comes while another writes, and to the first `busy` requests."""

    def __init__(self, busy: int) -> None:
        self.busy, self.writing, self.created, self.asked = busy, False, list[bytes](), 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.asked += 1
        refused = self.writing or self.asked <= self.busy
        if not refused:
            self.writing = True
            await asyncio.sleep(0)
            self.created.append(body)
            self.writing = False
        await send({"type": "http.response.start", "status": 503 if refused else 201, "headers": []})
        await send({"type": "http.response.body", "body": body})


async def post(app: Any, body: bytes, path: str = "/api/deployments/1/create_flow_run") -> tuple[int, bytes]:
    """Status and body, the request's body in two parts."""
    parts = [body[:1], body[1:]]
    sent: list[Any] = []

    async def receive() -> Any:
        if not parts:
            await asyncio.sleep(60)  # the client waits for its answer
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": path}, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "PAUSE_S", 0.0)


def test_parallel_creations_all_succeed_once() -> None:
    async def burst(app: Any) -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(post(app, b"run %d" % number) for number in range(40)))

    bodies = [b"run %d" % number for number in range(40)]
    bare = asyncio.run(burst(Database(0)))
    assert {status for status, _ in bare} == {201, 503} or bare.count((201, b"r")) < 40, "without the queue some are refused"
    queued = Database(busy=3)
    assert asyncio.run(burst(CreationQueue(queued))) == [(201, body) for body in bodies]
    assert sorted(queued.created) == sorted(bodies)


def test_a_database_that_stays_busy_is_told_so(capfd: pytest.CaptureFixture[str]) -> None:
    database = Database(busy=1000)
    assert asyncio.run(post(CreationQueue(database), b"run"))[0] == 503
    assert (database.asked, database.created) == (ATTEMPTS, [])
    assert "the database was busy, a flow run's creation is tried again (1 of 10)" in capfd.readouterr().err


def test_everything_else_passes_by() -> None:
    for method, path, queued in (
        ("POST", "/api/deployments/1/create_flow_run", True),
        ("POST", "/api/flow_runs/", True),
        ("POST", "/api/flow_runs/filter", False),
        ("GET", "/api/deployments/1/create_flow_run", False),
    ):
        assert creates_a_run({"type": "http", "method": method, "path": path}) == queued
    assert not creates_a_run({"type": "websocket", "path": "/api/flow_runs"})
