"""Starting and ending the three services as processes of their own, which outlive the command that started them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from flows.services_state import (
    WORDS,
    ProcessMark,
    Service,
    ServiceName,
    forget_service,
    listens,
    mark_of,
    services_folder,
    write_service,
)
from stages.errors import StageError

HOST = "127.0.0.1"
START_LIMIT_S = 900.0
"""Only a server that hangs takes so long: its first start makes a database, which takes minutes on a starved machine."""
STOP_LIMIT_S = 20.0
CHECKPOINT_LIMIT_S = 45.0
"""For a run that a stop interrupts: it writes a checkpoint within 30 s."""


def start(store: Path, name: ServiceName, command: Sequence[str], environment: Mapping[str, str], url: str) -> Service:
    """Start a service in a session of its own and note it. command: arguments after the Python interpreter."""
    folder = services_folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service(name, mark_of(process.pid) or ProcessMark(process.pid, ""), url)
    write_service(store, service)
    return service


def refuse_taken_port(name: ServiceName, url: str, port: int) -> None:
    """Raise StageError when another program has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StageError(
                f"the {WORDS[name]} cannot have {url}: {(error.strerror or 'taken').lower()}",
                None,
                f"end the other program or name another port: dreampolish up --{option(name)} {port + 10}",
            ) from None


def option(name: ServiceName) -> str:
    """The option of `dreampolish up` that names a server's port."""
    return "port" if name == "server" else "mlflow-port"


def wait_until_ready(store: Path, service: Service, path: str) -> None:
    """Wait for a server to answer 200 at a path. Raises StageError when its process ends or takes too long."""
    import httpx

    give_up = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up:
        if not service.alive:
            raise StageError(f"the {WORDS[service.name]} ended at once: {last_line(store, service.name)}", None, "see its log")
        if listens(service.url):
            try:
                if httpx.get(f"{service.url}{path}", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
        time.sleep(0.25)
    raise StageError(
        f"the {WORDS[service.name]} did not answer within {START_LIMIT_S:.0f} s", None, f"see {log_path(store, service.name)}"
    )


def stop(store: Path, service: Service) -> None:
    """End a service and all it started: asked first, then killed. One that is gone is only forgotten."""
    if service.alive:
        family = _family(service.process.pid)
        _signal(family, signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=STOP_LIMIT_S)
        _signal(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
    forget_service(store, service.name)


def stop_runs(worker: Service) -> int:
    """Ask the runs under a worker to checkpoint and end, once each, and wait for them; how many there were.

    Only what the worker itself started is asked: a second signal would end a run without its checkpoint.
    """
    if not worker.alive:
        return 0
    runs = [process for process in _family(worker.process.pid)[1:] if process.ppid() == worker.process.pid]
    _signal(runs, signal.SIGTERM)
    psutil.wait_procs(runs, timeout=CHECKPOINT_LIMIT_S)
    return len(runs)


def last_line(store: Path, name: ServiceName) -> str:
    """The last words of a service's log."""
    try:
        lines = log_path(store, name).read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return lines[-1].strip()[:200] if lines else "it said nothing"


def log_path(store: Path, name: ServiceName) -> Path:
    """A service's log."""
    return services_folder(store) / f"{name}.log"


def _family(pid: int) -> list[psutil.Process]:
    """A process and its descendants, the process first."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
