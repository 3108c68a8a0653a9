"""`dreampolish up` and `down`: Prefect server, MLflow server, page of runs and one worker for a store, on loopback only."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from flows.runs.roots import FOLDERS
from flows.service.apps import TRACKER_SECRET
from flows.service.backends.artifacts import artifacts_destination
from flows.service.backends.database import mlflow_database, prefect_database, prepare_database
from flows.service.backends.messages import message_environment
from flows.service.backends.pool import refuse_without_package, worker_command
from flows.service.backends.runs import RUNS, runs_path, tell_runs
from flows.service.backends.settings import read_settings, write_settings
from flows.service.deployments import (
    forget_set_up,
    is_set_up,
    note_set_up,
    pause_pool_without_others,
    set_up,
    set_up_digest,
    worker_name,
)
from flows.service.environment import QUIET, prefect_home
from flows.service.processes import (
    HOST,
    SERVICES,
    WORDS,
    Service,
    ServiceName,
    api_url,
    free_port,
    going_down,
    lets_in,
    listens,
    live_url,
    private_folder,
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
from flows.service.secret import (
    WATCH_SECRET,
    make_secret,
    own_hosts,
    own_origins,
    prefect_environment,
    read_secret,
    secret_path,
    server_environment,
    tracker_environment,
)
from schemas.service import PoolType, ServiceSettings
from stages.runtime.errors import StageError
from stages.runtime.files import database_uri, disk_errors_in_one_line, project_file, store_environment, take_lock

HEARTBEAT_S = 30
"""Between the signs of life that a run gives Prefect; without them a batch takes a run of another machine for dead."""
SERVER_PORT = 4200
MLFLOW_PORT = 5000
HOME = "priors/home"
WATCH_PORT = 4300
READY = {"server": "/api/health", "mlflow": "/health", "watch": "/rows"}


def up(
    store: Path,
    folder: Path,
    server_port: int,
    mlflow_port: int,
    runs_at_once: int,
    readable: Sequence[Path] = (),
    settings: ServiceSettings | None = None,
    watch_port: int | None = None,
) -> dict[str, Any]:
    """Start what does not run yet, register the deployments and return the pages; where all of it runs, nothing is done.

    folder: where the worker's runs work. readable: folders that their parameters may name files of. settings: kept for later calls, which
    may leave them out. Runs that a killed worker left behind are marked crashed before a new one begins; `crashed` has a line for each.
    watch_port: of the page of runs; None: WATCH_PORT, or any that is free. Raises StageError, and then what this call started is stopped
    again.
    """
    told = settings or read_settings(store)
    if server_port == mlflow_port:
        what = f"the Prefect server and the MLflow server cannot both have port {server_port}"
        raise StageError(
            what, None, f"name another: dreampolish up --port {server_port} --mlflow-port {mlflow_port % 65535 + 1}"
        )
    with disk_errors_in_one_line(store), _one_at_a_time(store):
        started: list[Service] = []
        try:
            secret, fresh = make_secret(store)
            if fresh or told != read_settings(store):
                _stop_unlocked(store)
            server, tracker = _servers(store, (server_port, mlflow_port), secret=secret, settings=told, started=started)
            watch = _running(store, "watch") or _start_watch(store, watch_port, secret, started)
            for service in started:
                wait_until_ready(store, service, READY[service.name])
            environment = run_environment(store, tracker.url, readable)
            _check_secret(store, [server, tracker, watch], secret)
            os.environ.update({**prefect_environment(secret), **tracker_environment(secret)})
            tell_runs(runs_path(store), folder, environment)
            digest, worker = set_up_digest(told, runs_at_once), _running(store, "worker")
            crashed: list[str] = []
            if not is_set_up(store, server, secret, digest):
                forget_set_up(store)
                with client_of(server, secret):
                    set_up(server.url, told, runs_at_once)
                _register_priors(tracker)
                note_set_up(store, server, digest)
            if worker is None:
                with client_of(server, secret):
                    crashed = crash_left_behind(store)
                started.append(_start_worker(store, server.url, secret, told.pool))
        except BaseException:
            for service in reversed(started):
                stop(store, service)
            raise
        ours = write_settings_file(folder, server, secret)
        pages = {"prefect": server.url, "mlflow": tracker.url, "watch": watch.url}
        return {**pages, "settings": "prefect.toml" if ours else "", "crashed": crashed}


@contextmanager
def client_of(server: Service, secret: str) -> Iterator[None]:
    """Let Prefect's client in this process talk to a server.

    It reads the environment once, when Prefect is imported; told nothing, it would start another server on the same database.
    """
    os.environ.update({"PREFECT_API_URL": api_url(server.url), **prefect_environment(secret)})
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api_url(server.url), PREFECT_API_AUTH_STRING: secret}):
        yield


def _register_priors(tracker: Service) -> None:
    """The priors of the preset `home` in the tracker's registry, under the alias of that name; pages are no reason not to come up."""
    # MLflow's client takes a second to import, when all runs already.
    from stages.runtime.tracking.journal import Place
    from stages.runtime.tracking.registry import register_priors

    with suppress(Exception):
        register_priors(Place(tracker.url, None), project_file(HOME), "home", HOME)


def crash_left_behind(store: Path) -> list[str]:
    """Set the flow runs whose process is gone to Crashed, so that they hold no place in the queue; a line for each."""
    from flows.service.doctor.prefect_runs import killed_flow_findings, stuck_flow_findings

    lines = []
    for finding in [*killed_flow_findings(store), *stuck_flow_findings(store)]:
        if finding.mend is not None:
            finding.mend()
            lines.append(finding.line.replace("dreampolish doctor --mend", "it is marked crashed"))
    return lines


def _stop_unlocked(store: Path) -> None:
    """Stop what runs although there was no secret: it takes everybody, or knows a secret that is lost."""
    worker = read_service(store, "worker")
    if worker is not None:
        stop_runs(worker)
    _stop_services(store)


def _stop_services(store: Path) -> None:
    """The worker first, then the servers."""
    for name in reversed(SERVICES):
        service = read_service(store, name)
        if service is not None:
            stop(store, service)


def _check_secret(store: Path, servers: Sequence[Service], secret: str) -> None:
    """Raise StageError when a server takes who has no secret, or does not take the store's."""
    for service in servers:
        about = f"the {WORDS[service.name]} at {service.url}"
        if lets_in(service, None):
            raise StageError(f"{about} answers without the secret", None, "dreampolish down, then dreampolish up")
        if not lets_in(service, secret):
            what = f"{about} does not take the secret in {secret_path(store)}"
            raise StageError(what, None, "dreampolish down, then dreampolish up")


def down(store: Path) -> list[ServiceName]:
    """Stop what runs: the worker's runs, which write their checkpoints, the worker, then the servers. Returns what was stopped."""
    if not services_folder(store).is_dir():
        return []
    with _one_at_a_time(store), going_down(store):
        noted = {name: read_service(store, name) for name in SERVICES}
        server, worker = noted["server"], noted["worker"]
        stopped: list[ServiceName] = [name for name, service in noted.items() if service is not None and service.alive]
        if worker is not None and worker.alive:
            _let_runs_end(store, worker)
        _stop_services(store)
        remove_settings_file(Path.cwd(), None if server is None else server.process)
        return stopped


def _let_runs_end(store: Path, worker: Service) -> None:
    """Let no run begin, and those that go on write their checkpoints."""
    server = read_service(store, "server")
    if server is not None and live_url(store, "server") is not None:
        with suppress(Exception), client_of(server, read_secret(store) or ""):
            # A server that is in trouble must not keep the worker from being stopped.
            pause_pool_without_others(store)
    stop_runs(worker)


def run_environment(store: Path, tracker_url: str | None, readable: Sequence[Path]) -> dict[str, str]:
    """What every run of this machine's worker finds in its environment: the store, the tracker, and the tools kept quiet and offline.

    The secret is not in it: runs inherit that from their worker.
    """
    inherited = {name: value for name, value in QUIET.items() if "LOGGING" not in name and "EPHEMERAL" not in name}
    return {
        **inherited,
        **store_environment(store),
        **({} if tracker_url is None else {"MLFLOW_TRACKING_URI": tracker_url}),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        **prefect_home(store),
        FOLDERS: os.pathsep.join(str(each.resolve()) for each in readable),
    }


def _running(store: Path, name: ServiceName) -> Service | None:
    """A service that runs and answers; one that runs but does not is stopped, one that is gone is forgotten."""
    service = read_service(store, name)
    if service is None:
        return None
    if service.alive and (name == "worker" or listens(service.url)):
        return service
    stop(store, service)
    return None


def _servers(
    store: Path, ports: tuple[int, int], secret: str, settings: ServiceSettings, started: list[Service]
) -> tuple[Service, Service]:
    """Prefect's and MLflow's, those that run and those that are started with these settings."""
    refuse_without_package(settings.pool)
    server, tracker = _running(store, "server"), _running(store, "mlflow")
    if server is None or tracker is None:
        prepare_database(settings)
    if server is None:
        server = _start_server(store, ports[0], secret=secret, settings=settings, started=started)
    if tracker is None:
        tracker = _start_mlflow(store, ports[1], secret=secret, settings=settings, started=started)
    write_settings(store, settings)
    return server, tracker


def _start_server(store: Path, port: int, secret: str, settings: ServiceSettings, started: list[Service]) -> Service:
    url = f"http://{HOST}:{port}"
    refuse_taken_port("server", url, port)
    environment = {
        **prefect_home(store),
        "DREAMPOLISH_STORE": str(store),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": api_url(url),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        **server_environment(secret, port),
        **prefect_database(settings),
        **message_environment(settings),
    }
    started.append(
        start(
            store=store,
            name="server",
            command=["-m", "flows.service.apps", "server", str(port)],
            environment=environment,
            url=url,
        )
    )
    return started[-1]


def _start_mlflow(store: Path, port: int, secret: str, settings: ServiceSettings, started: list[Service]) -> Service:
    url = f"http://{HOST}:{port}"
    refuse_taken_port("mlflow", url, port)
    options = [
        *("--artifacts-destination", artifacts_destination(store, settings)),
        # MLflow's own checks stay on behind ours.
        *("--allowed-hosts", ",".join(own_hosts(port))),
        *("--cors-allowed-origins", ",".join(own_origins(port))),
    ]
    command = ["-m", "flows.service.apps", "mlflow", str(port), *options]
    # The address may hold a password: not an argument, which every user of the machine can read.
    environment = {TRACKER_SECRET: secret, "MLFLOW_BACKEND_STORE_URI": mlflow_database(settings) or _own_database(store)}
    started.append(start(store=store, name="mlflow", command=command, environment=environment, url=url))
    return started[-1]


def _own_database(store: Path) -> str:
    """The same database as without a server, so that figures are the same by both ways."""
    from stages.runtime.tracking.relocatable import DATABASE, make_relocatable  # a second to import, when all runs already

    make_relocatable(store / DATABASE, "dreampolish")
    return database_uri(store / DATABASE)


def _start_watch(store: Path, port: int | None, secret: str, started: list[Service]) -> Service:
    chosen = free_port(WATCH_PORT) if port is None else port
    url = f"http://{HOST}:{chosen}"
    refuse_taken_port("watch", url, chosen)
    environment = {"DREAMPOLISH_STORE": str(store), WATCH_SECRET: secret}
    command = ["-m", "flows.report.live.server", str(chosen)]
    started.append(start(store=store, name="watch", command=command, environment=environment, url=url))
    return started[-1]


def _start_worker(store: Path, server_url: str, secret: str, pool: PoolType) -> Service:
    """A worker of the pool's type. Its own runs read the file that `up` writes; containers have an environment of their own."""
    client = {"PREFECT_API_URL": api_url(server_url), "PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    command = [*worker_command(pool), "--name", worker_name(store)]
    environment = {
        **prefect_home(store),
        **client,
        **prefect_environment(secret),
        **tracker_environment(secret),
        RUNS: str(runs_path(store)),
    }
    return start(store=store, name="worker", command=command, environment=environment, url="")


def _one_at_a_time(store: Path) -> AbstractContextManager[object]:
    """Two `up` or `down` of one store do not mix; a dead holder's lock is free at once."""
    folder = services_folder(store)
    private_folder(folder)
    try:
        return take_lock(folder / "lock", wait_s=0)
    except BlockingIOError:
        raise StageError("another dreampolish up or down is at work on this store", None, "wait for it") from None
