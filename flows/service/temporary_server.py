"""Prefect's temporary server for a command: started ahead of its flow, and kept alive through a Ctrl-C on the terminal.

Prefect starts one by itself where no API is configured, but only when a flow begins, and the command then waits for it; it also imports
all of the server into the command's own process. Here it boots in its own process while the stages are imported. Flows that are called
as functions, without this, get Prefect's own. It asks for a secret that lives as long as the command and is written nowhere.

`python -m flows.service.temporary_server FD` is the server, on the listening socket of that number.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from flows.service.apps import prefect_app
from flows.service.secret import new_secret, server_environment
from stages.runtime.files import STORE_ELSEWHERE, take_lock, try_folder

LOOK_INTERVAL_S = 0.05
STOPPING_S = 5.0
"""For a server that was asked to stop, before it is killed."""
PR_SET_PDEATHSIG = 1
"""Of Linux' prctl: which signal a process gets when its parent has ended."""


class ServerError(RuntimeError):
    """The temporary server did not come up."""


@contextmanager
def temporary_server(meanwhile: Callable[[], None]) -> Iterator[None]:
    """Inside, Prefect has a server: the configured one, else one of this process's own, which ends with the block.

    meanwhile: what to do while it boots. Raises ServerError when it does not answer within Prefect's own patience.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    # Prefect makes it at import, but not the folders above it, and the store may be younger than that.
    home = Path(PREFECT_HOME.value())
    home.mkdir(mode=0o700, parents=True, exist_ok=True)

    if PREFECT_API_URL.value():
        meanwhile()
        yield
        return
    # Its database lies there, and the server would tell a closed folder in many lines.
    try_folder(home, STORE_ELSEWHERE)
    server, secret = None, new_secret()
    try:
        # The socket is the server's before anybody else can take its port; who connects too early waits in its queue.
        with closing(socket.create_server(("127.0.0.1", 0), backlog=128)) as listening:
            port = int(listening.getsockname()[1])
            url = f"http://127.0.0.1:{port}/api"
            server = _started(listening.fileno(), server_environment(secret, port))
        meanwhile()
        _wait(server, f"{url}/health", float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()))
        with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: secret}):
            yield
    finally:
        if server is not None:
            _stop(server)


def load_stages() -> None:
    """Import the stages, which takes some seconds, ahead of their use."""
    import_module("flows.runs.chain")


def _started(listening: int, closed: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    # The marks by which Prefect's server knows that it is a temporary one: fewer services, no pages.
    marks = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.service.temporary_server", str(listening)],
        env={**os.environ, **marks, **closed},
        stdin=subprocess.DEVNULL,
        pass_fds=(listening,),
        # `timeout` and shells signal the command's whole group; a stopped run still has its end to report.
        start_new_session=True,
    )


def _serve(listening: int) -> None:
    """Be the server.

    Deaf to SIGINT: the terminal sends Ctrl-C to every process of the command, and without its server Prefect's client tries again for a
    minute and more before it gives up, so that a stopped run would not end in time. SIGTERM is heard, and comes by itself when the
    command ends without having said so.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    import uvicorn
    from prefect.settings import PREFECT_HOME

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            # Prefect makes and migrates its home's database here, and two servers that do so at once break each other's start.
            with _alone_in(Path(PREFECT_HOME.value())):
                await super().startup(sockets)

    with_socket = socket.socket(fileno=listening)
    app = partial(prefect_app, int(with_socket.getsockname()[1]))
    Server(uvicorn.Config(app, factory=True, log_level="error", lifespan="on")).run(sockets=[with_socket])


def _alone_in(home: Path) -> AbstractContextManager[object]:
    """One process at a time; a dead holder's lock is free at once."""
    home.mkdir(parents=True, exist_ok=True)
    return take_lock(home / "starting.lock")


def _wait(server: "subprocess.Popen[bytes]", page: str, patience_s: float) -> None:
    """Until the server answers."""
    import httpx

    until = time.monotonic() + patience_s
    with httpx.Client(trust_env=False, timeout=patience_s) as client:
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                if client.get(page).is_success:
                    return
            if server.poll() is not None:
                raise ServerError(f"Prefect's temporary server ended with {server.returncode}")
            time.sleep(LOOK_INTERVAL_S)
    raise ServerError(f"Prefect's temporary server did not answer within {patience_s:.0f} s")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(timeout=STOPPING_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
