"""Prefect's temporary server: started ahead of the flow, and kept alive through a Ctrl-C on the terminal.

Prefect starts one by itself where no API is configured, but only when a flow begins, and the command then waits for it; it also imports
all of the server into the command's own process. Here it boots in its own process while the stages are imported.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

PATIENCE_S = 120.0
"""Until a server that does not answer is given up."""
LOOK_INTERVAL_S = 0.05
STOPPING_S = 5.0
"""For a server that was asked to stop, before it is killed."""


class ServerError(RuntimeError):
    """The temporary server did not come up."""


@contextmanager
def temporary_server(meanwhile: Callable[[], None]) -> Iterator[None]:
    """Inside, Prefect has a server: the configured one, else one of this process's own, which ends with the block.

    meanwhile: what to do while it boots. Raises ServerError when it does not answer.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():
        meanwhile()
        yield
        return
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    server = _started(port)
    try:
        meanwhile()
        _wait(server, f"{url}/health")
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        _stop(server)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _started(port: int) -> "subprocess.Popen[bytes]":
    """As Prefect's own temporary server is started, but deaf to SIGINT.

    The terminal sends Ctrl-C to every process of the command. Without its server, Prefect's client tries again for a minute and more
    before it gives up, and a stopped run would not end in time. SIGTERM, with which the server is stopped, is heard as ever.
    """
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
    # The marks by which Prefect's server knows that it is a temporary one: fewer services, no pages.
    marks = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    # A blocked signal stays blocked in what is started.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(command, env={**os.environ, **marks}, stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(server: "subprocess.Popen[bytes]", page: str) -> None:
    """Until the server answers."""
    import httpx

    until = time.monotonic() + PATIENCE_S
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < until:
            if server.poll() is not None:
                raise ServerError(f"Prefect's temporary server ended with {server.returncode}")
            with suppress(httpx.TransportError):
                if client.get(page).is_success:
                    return
            time.sleep(LOOK_INTERVAL_S)
    raise ServerError(f"Prefect's temporary server did not answer within {PATIENCE_S:.0f} s")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(timeout=STOPPING_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
