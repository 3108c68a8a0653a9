"""Prefect's and MLflow's servers behind our guard. `python -m flows.service.apps server|mlflow PORT [OPTION ...]` is one of them."""

import asyncio
import base64
import hmac
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.service.backends.away import DatabaseAway, whole_answer, whole_body
from flows.service.secret import own_hosts, own_origins
from stages.runtime.tracking.messages import write_line

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

FOREIGN_SITES = ("cross-site", "same-site")
"""Same-site is another port of this machine: another program's page."""


class Guard:
    """An ASGI application that lets in only what was meant for it. secret: asked for on every path where it is given."""

    def __init__(self, app: "ASGIApp", port: int, secret: str | None = None) -> None:
        self.app = app
        self.hosts = own_hosts(port)
        self.origins = own_origins(port)
        self.authorization = None if secret is None else b"Basic " + base64.b64encode(secret.encode())

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer 403 to strangers' pages, 401 to who lacks the secret, and hand on the rest."""
        refused = self.refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self.app(scope, receive, send)
        else:
            await _refuse(scope, send, *refused)

    def refusal(self, scope: "Scope") -> tuple[int, str] | None:
        """Status and words for a request that is not let in; None for one that is."""
        headers = _headers(scope)
        if headers.get("host") not in self.hosts:
            return 403, "this server does not answer to that Host"
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins:
            return 403, "this server does not answer to pages of that Origin"
        if origin is None and headers.get("sec-fetch-site") in FOREIGN_SITES and not _is_visit(scope, headers):
            return 403, "this server does not answer to pages of other sites"
        if self.authorization is not None:
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self.authorization):
                return 401, "this server asks for the secret of dreampolish up"
        return None


def _headers(scope: "Scope") -> dict[str, str]:
    """A request's headers; one that stands there twice counts as neither of its values."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        found[key] = value.decode("latin-1") if key not in found else f"{found[key]}, {value.decode('latin-1')}"
    return found


def _is_visit(scope: "Scope", headers: dict[str, str]) -> bool:
    """Whether the user followed a link to a whole page, which the page with the link can neither read nor frame."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


async def _refuse(scope: "Scope", send: "Send", status: int, words: str) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted, this is answered with 403.
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="dreampolish"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{words}\n".encode()})


BUSY = 503
"""What Prefect answers when another writer has the database; nothing has been written then."""
ATTEMPTS = 10
PAUSE_S = 0.1
"""Before the second attempt; each further pause is so much longer."""


class CreationQueue:
    """An ASGI application that hands on creations of flow runs one at a time, and again while the database is busy.

    SQLite lets one writer in at a time, and Prefect answers 503 to the others. Its own client asks again; a plain HTTP client or a webhook
    does not, and its run would be lost. PostgreSQL needs none of this.
    """

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app
        self._turn = asyncio.Lock()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Queue a creation; everything else passes by."""
        if not creates_a_run(scope):
            await self.app(scope, receive, send)
            return
        body = await whole_body(receive)
        async with self._turn:
            for attempt in range(1, ATTEMPTS + 1):
                answer = await whole_answer(self.app, scope, body=body, later=receive)
                if answer[0].get("status") != BUSY or attempt == ATTEMPTS:
                    break
                write_line(f"the database was busy, a flow run's creation is tried again ({attempt} of {ATTEMPTS})", "error")
                await asyncio.sleep(PAUSE_S * attempt)
        for message in answer:
            await send(message)


def creates_a_run(scope: "Scope") -> bool:
    """Whether a request makes a flow run, of a deployment or of its own."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path = scope["path"].rstrip("/")
    return path.endswith("/create_flow_run") or path.endswith("/flow_runs")


HOST = "127.0.0.1"
TRACKER_SECRET = "DREAMPOLISH_TRACKER_SECRET"
TRACKER_PORT = "DREAMPOLISH_TRACKER_PORT"


def prefect_app(port: int) -> "ASGIApp":
    """Prefect's API and pages. It asks for the secret by itself (PREFECT_SERVER_API_AUTH_STRING)."""
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    import flows.runs.notices  # noqa: F401  # the server finds the class of a notification block only where it is imported

    app = create_app(final=True)
    database = get_current_settings().server.database.connection_url
    url = "sqlite" if database is None else database.get_secret_value()
    return Guard(CreationQueue(app) if url.startswith("sqlite") else DatabaseAway(app, url), port)


def serve_prefect(port: int) -> None:
    """Be the Prefect server until SIGTERM, as `prefect server start` is, but behind the guard."""
    import uvicorn

    uvicorn.run(prefect_app(port), host=HOST, port=port, log_level="warning")


def mlflow_app() -> "ASGIApp":
    """MLflow's API and pages, with the secret asked for on every path.

    MLflow's own basic-auth app leaves some paths open, keeps a hash of the password in a database and needs another package.
    """
    from mlflow.server.fastapi_app import app

    return Guard(app, int(os.environ[TRACKER_PORT]), os.environ.pop(TRACKER_SECRET))


def serve_mlflow(port: int, options: Sequence[str]) -> None:
    """Be `mlflow server` with our application in place of its own.

    Its command line knows no other application than its own two, so the one that it hands to uvicorn is exchanged. Should MLflow change
    there, this raises, or `up` sees that strangers get an answer and stops.
    """
    import mlflow.cli
    import mlflow.server

    command_for = mlflow.server._build_uvicorn_command

    def guarded(uvicorn_opts: str | None, host: str, port: int, workers: int, *_others: object) -> list[str]:
        app = f"flows.service.apps:{mlflow_app.__name__}"
        return command_for(uvicorn_opts=uvicorn_opts, host=host, port=port, workers=workers, app_name=app, is_factory=True)

    mlflow.server._build_uvicorn_command = guarded
    os.environ[TRACKER_PORT] = str(port)
    mlflow.cli.cli(["server", "--host", HOST, "--port", str(port), "--workers", "1", *options])


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve_prefect(int(sys.argv[2]))
    else:
        serve_mlflow(int(sys.argv[2]), sys.argv[3:])
