"""What `dreampolish up` started for a store: one small JSON a service in `<store>/services/`. Imports nothing heavy."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil

ServiceName = Literal["server", "mlflow", "worker"]
SERVICES: tuple[ServiceName, ...] = ("server", "mlflow", "worker")
WORDS: dict[ServiceName, str] = {"server": "Prefect server", "mlflow": "MLflow server", "worker": "worker"}
SETTINGS_FILE = "prefect.toml"
"""Prefect reads it in the folder where a user types `prefect`."""
MARK = "# Written by `dreampolish up`, removed by `dreampolish down`; the Prefect server's process:"


@dataclass(frozen=True)
class ProcessMark:
    """A process that another with the same number cannot be taken for. started: empty where that cannot be told."""

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
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{service.name}.{os.getpid()}.partial"
    partial.write_text(json.dumps(asdict(service)))
    partial.replace(folder / f"{service.name}.json")


def forget_service(store: Path, name: ServiceName) -> None:
    """Remove what is noted of a service."""
    (services_folder(store) / f"{name}.json").unlink(missing_ok=True)


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


def write_settings_file(folder: Path, server: Service) -> bool:
    """Let `prefect` typed in a folder find the server; False when the folder has a settings file of the user's own."""
    path = folder / SETTINGS_FILE
    if path.exists() and not path.read_text(errors="replace").startswith(MARK):
        return False
    path.write_text(f'{MARK} {server.process.pid} {server.process.started}\n[api]\nurl = "{api_url(server.url)}"\n')
    return True


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
