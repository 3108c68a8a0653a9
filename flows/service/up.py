"""`dreampolish up` and `down`: Prefect server, MLflow server and one worker for a store, on loopback only."""

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from flows.service.deployments import POOL, pause_pool, set_up
from flows.service.environment import QUIET
from flows.service.processes import (
    HOST,
    SERVICES,
    Service,
    ServiceName,
    api_url,
    listens,
    live_url,
    read_service,
    refuse_taken_port,
    remove_settings_file,
    services_folder,
    start,
    stop,
    stop_runs,
    wait_until_ready,
    write_settings_file,
)
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line, take_lock

SERVER_PORT = 4200
MLFLOW_PORT = 5000
READY = {"server": "/api/health", "mlflow": "/health"}


def up(store: Path, folder: Path, server_port: int, mlflow_port: int, runs_at_once: int) -> dict[str, str]:
    """Start what does not run yet, register the deployments and return the two pages.

    folder: where the worker's runs work. Raises StageError, and then what this call started is stopped again.
    """
    with disk_errors_in_one_line(store), _one_at_a_time(store):
        started: list[Service] = []
        try:
            server = _running(store, "server") or _start_server(store, server_port, started)
            tracker = _running(store, "mlflow") or _start_mlflow(store, mlflow_port, started)
            for service in started:
                wait_until_ready(store, service, READY[service.name])
            environment = run_environment(store, tracker.url)
            set_up(server.url, environment, folder, runs_at_once)
            if _running(store, "worker") is None:
                started.append(_start_worker(store, server.url, environment))
        except BaseException:
            for service in reversed(started):
                stop(store, service)
            raise
        ours = write_settings_file(folder, server)
        return {"prefect": server.url, "mlflow": tracker.url, "settings": "prefect.toml" if ours else ""}


def down(store: Path) -> list[ServiceName]:
    """Stop what runs: the worker's runs, which write their checkpoints, the worker, then the servers. Returns what was stopped."""
    if not services_folder(store).is_dir():
        return []
    with _one_at_a_time(store):
        noted = {name: read_service(store, name) for name in SERVICES}
        server, worker = noted["server"], noted["worker"]
        stopped: list[ServiceName] = [name for name, service in noted.items() if service is not None and service.alive]
        if worker is not None and worker.alive:
            _let_runs_end(store, worker)
        for name in ("worker", "mlflow", "server"):
            service = noted[name]
            if service is not None:
                stop(store, service)
        remove_settings_file(Path.cwd(), None if server is None else server.process)
        return stopped


def _let_runs_end(store: Path, worker: Service) -> None:
    """Let no run begin, and those that go on write their checkpoints."""
    page = live_url(store, "server")
    if page is not None:
        os.environ["PREFECT_API_URL"] = api_url(page)
        with suppress(Exception):
            # A server that is in trouble must not keep the worker from being stopped.
            pause_pool(True)
    stop_runs(worker)


def run_environment(store: Path, tracker_url: str) -> dict[str, str]:
    """What every run of the pool finds in its environment: the store, the tracker, and the tools kept quiet and offline."""
    told = {name: value for name, value in QUIET.items() if "LOGGING" not in name and "EPHEMERAL" not in name}
    return {**told, "DREAMPOLISH_STORE": str(store), "MLFLOW_TRACKING_URI": tracker_url, "PREFECT_HOME": str(store / "prefect")}


def _running(store: Path, name: ServiceName) -> Service | None:
    """A service that runs and answers; one that runs but does not is stopped, one that is gone is forgotten."""
    service = read_service(store, name)
    if service is None:
        return None
    if service.alive and (name == "worker" or listens(service.url)):
        return service
    stop(store, service)
    return None


def _start_server(store: Path, port: int, started: list[Service]) -> Service:
    url = f"http://{HOST}:{port}"
    refuse_taken_port("server", url, port)
    environment = {
        "PREFECT_HOME": str(store / "prefect"),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": api_url(url),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    }
    command = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    started.append(start(store, "server", command, environment, url))
    return started[-1]


def _start_mlflow(store: Path, port: int, started: list[Service]) -> Service:
    url = f"http://{HOST}:{port}"
    refuse_taken_port("mlflow", url, port)
    # The same database and folder as without a server, so that figures are the same by both ways.
    places = [
        "--backend-store-uri",
        f"sqlite:///{store}/mlflow.db",
        "--default-artifact-root",
        (store / "mlartifacts").as_uri(),
    ]
    command = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1", "--no-serve-artifacts", *places]
    started.append(start(store, "mlflow", command, {}, url))
    return started[-1]


def _start_worker(store: Path, server_url: str, environment: dict[str, str]) -> Service:
    told = {"PREFECT_API_URL": api_url(server_url), "PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", f"{POOL}-{os.getpid()}"]
    return start(store, "worker", command, {**environment, **told}, "")


def _one_at_a_time(store: Path) -> AbstractContextManager[object]:
    """Two `up` or `down` of one store do not mix; a dead holder's lock is free at once."""
    folder = services_folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return take_lock(folder / "lock", wait_s=0)
    except BlockingIOError:
        raise StageError("another dreampolish up or down is at work on this store", None, "wait for it") from None
