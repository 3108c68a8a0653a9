"""Prefect's temporary server, kept alive through a Ctrl-C on the terminal, so that the run can still report how it ended."""

import signal
import subprocess
from typing import Any


def shield_temporary_server() -> None:
    """From now on a temporary server starts deaf to SIGINT.

    The terminal sends Ctrl-C to every process of the command. Without its server, Prefect's client tries again for a minute and more
    before it gives up, and a stopped run would not end in time. SIGTERM, with which Prefect stops the server, is heard as ever.
    """
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.server.api.server import SubprocessASGIServer

    if getattr(SubprocessASGIServer, "shielded", False):
        return
    original = SubprocessASGIServer._run_uvicorn_command

    def shielded(self: Any) -> "subprocess.Popen[Any]":
        # A blocked signal stays blocked in what is started.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return original(self)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    SubprocessASGIServer._run_uvicorn_command = shielded  # type: ignore[method-assign]
    SubprocessASGIServer.shielded = True  # type: ignore[attr-defined]
