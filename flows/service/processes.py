"""Starting and ending the three services as processes of their own, which outlive the command that started them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

from dreampolish.optim.atomic_files import write_atomically
from flows.store.logs import rotate_logs
from stages.runtime.errors import StageError

ServiceName = Literal["server", "mlflow", "watch", "worker"]
SERVICES: tuple[ServiceName, ...] = ("server", "mlflow", "watch", "worker")
WORDS: dict[ServiceName, str] = {
    "server": "Prefect server",
    "mlflow": "MLflow server",
    "watch": "page of runs",
    "worker": "worker",
}
GOING_DOWN = "going-down"
"""Of the services' folder: the process that stops them."""
SETTINGS_FILE = "prefect.toml"
"""Prefect reads it in the folder where a user types `prefect`."""
MARK = "# Written by `dreampolish up`, removed by `dreampolish down`; the Prefect server's process:"


@dataclass(frozen=True)
class ProcessMark:
    """A process that another with the same number cannot be taken for. started: empty where that cannot be known."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs; a zombie does not."""
        return self.started != "" and mark_of(self.pid) == self


@dataclass(frozen=True)
class Service:
    """One service. url: the page a user opens; empty for the worker."""

    name: ServiceName
    process: ProcessMark
    url: str

    @property
    def alive(self) -> bool:
        """Whether its process runs; says nothing of its port."""
        return self.process.alive


def mark_of(pid: int) -> ProcessMark | None:
    """The process that has this number now; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Ticks since boot do not move when the clock is set, as psutil's times do.
        return None if stat[0] in "ZX" else ProcessMark(pid, f"{boot}:{stat[19]}")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _mark_by_clock(pid)


def _mark_by_clock(pid: int) -> ProcessMark | None:
    """The same on systems without /proc."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else ProcessMark(pid, f"{process.create_time():.0f}")
    except psutil.Error:
        return None


def own_mark() -> ProcessMark:
    """This process."""
    return mark_of(os.getpid()) or ProcessMark(os.getpid(), "")


def services_folder(store: Path) -> Path:
    """Where records and logs of the services lie."""
    return store / "services"


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter, or make it one."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def open_private(path: str | Path, flags: int) -> int:
    """For `open(..., opener=open_private)`: a new file is its owner's alone."""
    return os.open(path, flags, 0o600)


def read_service(store: Path, name: ServiceName) -> Service | None:
    """What is noted of a service, alive or not; None when nothing readable is."""
    try:
        noted = json.loads((services_folder(store) / f"{name}.json").read_bytes())
        process = noted["process"]
        return Service(name, ProcessMark(int(process["pid"]), str(process["started"])), str(noted["url"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_service(store: Path, service: Service) -> None:
    """Note a service that was started."""
    folder = services_folder(store)
    private_folder(folder)
    write_atomically(folder / f"{service.name}.json", json.dumps(asdict(service)).encode())


def forget_service(store: Path, name: ServiceName) -> None:
    """Remove what is noted of a service."""
    (services_folder(store) / f"{name}.json").unlink(missing_ok=True)


@contextmanager
def going_down(store: Path) -> Iterator[None]:
    """Let others see that the services are being stopped, for as long as this process does so."""
    path = services_folder(store) / GOING_DOWN
    write_atomically(path, json.dumps(asdict(own_mark())).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def is_going_down(store: Path) -> bool:
    """Whether a living process stops the services now."""
    try:
        return ProcessMark(**json.loads((services_folder(store) / GOING_DOWN).read_bytes())).alive
    except (OSError, ValueError, TypeError):
        return False


def live_url(store: Path, name: ServiceName) -> str | None:
    """The page of a service that runs and answers on its port; None otherwise."""
    service = read_service(store, name)
    return service.url if service is not None and service.alive and listens(service.url) else None


def listens(url: str) -> bool:
    """Whether something takes connections at a URL's port."""
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1):
            return True
    except OSError:
        return False


def write_settings_file(folder: Path, server: Service, secret: str) -> bool:
    """Let `prefect` typed in a folder find the server and be let in; False when the folder has a settings file of the user's own.

    The file is its owner's alone, and git does not see it.
    """
    path = folder / SETTINGS_FILE
    if path.exists() and not path.read_text(errors="replace").startswith(MARK):
        return False
    _keep_from_git(path)
    head = f"{MARK} {server.process.pid} {server.process.started}"
    write_atomically(path, f'{head}\n[api]\nurl = "{api_url(server.url)}"\nauth_string = "{secret}"\n'.encode(), 0o600)
    return True


def _keep_from_git(path: Path) -> None:
    """Where git would offer a file to be committed, add it to the list of what this checkout alone leaves out."""
    try:
        if _git(path.parent, "check-ignore", "--quiet", path.name).returncode != 1:
            return  # left out already, or no checkout
        inside = _git(path.parent, "rev-parse", "--show-prefix").stdout.removesuffix("\n")
        listed = path.parent / _git(path.parent, "rev-parse", "--git-path", "info/exclude").stdout.removesuffix("\n")
        listed.parent.mkdir(exist_ok=True)
        before = listed.read_text() if listed.exists() else ""
        listed.write_text(f"{before}{'' if before.endswith(chr(10)) or not before else chr(10)}/{inside}{path.name}\n")
    except (OSError, subprocess.TimeoutExpired):
        return  # no git, or a checkout that cannot be written


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False)


def remove_settings_file(folder: Path, server: ProcessMark | None) -> None:
    """Remove our settings file when it names `server`, or a server that is gone; a user's own file stays."""
    path = folder / SETTINGS_FILE
    try:
        first = path.read_text().split("\n", 1)[0]
    except (OSError, UnicodeDecodeError):
        return
    if not first.startswith(MARK):
        return
    pid, _, started = first.removeprefix(MARK).strip().partition(" ")
    named = ProcessMark(int(pid) if pid.isdigit() else 0, started)
    if named == server or not named.alive:
        path.unlink(missing_ok=True)


def api_url(page: str) -> str:
    """The API's address of a Prefect server with this page."""
    return f"{page.rstrip('/')}/api"


HOST = "127.0.0.1"
START_LIMIT_S = 900.0
"""Only a server that hangs takes so long: its first start makes a database, which takes minutes on a starved machine."""
STOP_LIMIT_S = 20.0
CHECKPOINT_LIMIT_S = 45.0
"""For a run that a stop interrupts: it writes a checkpoint within 30 s."""


def start(store: Path, name: ServiceName, command: Sequence[str], environment: Mapping[str, str], url: str) -> Service:
    """Start a service in a session of its own and note it. command: arguments after the Python interpreter."""
    folder = services_folder(store)
    private_folder(folder)
    rotate_logs(store)
    with open(folder / f"{name}.log", "ab", opener=open_private) as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A worker's runs make files as commands do: `for_the_user` gives those in outputs/ the user's own umask.
            umask=0o077,
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


def free_port(wanted: int) -> int:
    """The wanted port, or another one where a program has that."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    return wanted


def option(name: ServiceName) -> str:
    """The option of `dreampolish up` that names a server's port."""
    return "port" if name == "server" else f"{name}-port"


def wait_until_ready(store: Path, service: Service, path: str) -> None:
    """Wait for a server to answer at a path, 200 or 401: it is not asked with the secret before it is known to be ours.

    Raises StageError when its process ends or takes too long.
    """
    import httpx

    give_up = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up:
        if not service.alive:
            raise StageError(f"the {WORDS[service.name]} ended at once: {last_line(store, service.name)}", None, "see its log")
        if listens(service.url):
            try:
                if httpx.get(f"{service.url}{path}", timeout=5, trust_env=False).status_code in (200, 401):
                    return
            except httpx.HTTPError:
                pass
        time.sleep(0.25)
    raise StageError(
        f"the {WORDS[service.name]} did not answer within {START_LIMIT_S:.0f} s", None, f"see {log_path(store, service.name)}"
    )


def lets_in(service: Service, secret: str | None) -> bool:
    """Whether a server answers who knows this secret, or none. Raises httpx.HTTPError when it does not answer at all."""
    import httpx

    user, _, password = (secret or "").partition(":")
    auth = None if secret is None else httpx.BasicAuth(user, password)
    page = service.url + {"mlflow": "/version", "watch": "/rows"}.get(service.name, "/api/version")
    return httpx.get(page, auth=auth, timeout=30, trust_env=False).status_code != 401


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
