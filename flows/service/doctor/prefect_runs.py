"""Runs that Prefect or MLflow show as running although their process is gone, and what sets both right."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, TaskRunFilter, TaskRunFilterState
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows.service.backends.pool import GPU_SLOT, POOL
from flows.service.deployments import DEPLOYMENTS, LEASE_S, online_workers, worker_name
from flows.service.doctor.findings import Finding
from flows.service.marks import MACHINE, FlowMark, all_marks, forget_mark
from flows.service.processes import (
    SERVICES,
    WORDS,
    Service,
    ServiceName,
    forget_service,
    lets_in,
    listens,
    mark_of,
    read_service,
)
from flows.service.secret import is_refusal, read_secret, secret_path
from flows.service.temporary_server import temporary_server
from stages.runtime.files import is_locked
from stages.runtime.records import record_path
from stages.runtime.tracking.files import PARENT_JOURNAL
from stages.runtime.tracking.journal import Journal, place_from_store

BUSY = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
"""States that hold a place in the queue. Pending: a worker has taken the run and starts its process."""
START_S = 120.0
"""For another machine's worker to note the process of a run that it has taken; it takes seconds."""
CLOCK_S = 120.0
"""By which a process may be younger than its run's state says."""
GONE = "its process is gone"


def killed_flow_findings(store: Path) -> list[Finding]:
    """Flow runs of this store whose process is gone, known without a server."""
    found = []
    for mark in all_marks(store):
        if not mark.alive:
            named = f"run {mark.run}" if mark.run else f"a {mark.flow} flow"
            later = f", then dreampolish resume {mark.run}" if mark.run else ""
            found.append(
                Finding(
                    f"{named} was killed while it ran (process {mark.process.pid} is gone); dreampolish doctor --mend{later}",
                    partial(crash_marked, store, mark),
                )
            )
    return found


def stuck_flow_findings(store: Path) -> list[Finding]:
    """Flow runs that the server shows as starting or running, without a mark of this store, and whose process is gone."""
    marked = {mark.flow_run for mark in all_marks(store)}
    with get_client(sync_client=True) as client:
        state = FlowRunFilterState.model_validate({"type": {"any_": BUSY}})
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), limit=200)
        alone = not any(worker.name != worker_name(store) for worker in online_workers(client))
    worker = read_service(store, "worker")
    since = began_at(worker.process.pid) if worker is not None and worker.alive else None
    return [
        Finding(
            f"flow run {run.name} is {run.state_name} in Prefect, but {GONE}, and its place in the queue is taken; "
            "dreampolish doctor --mend",
            partial(_crash_by_name, str(run.id)),
        )
        for run in runs
        if str(run.id) not in marked and (process_is_gone(run, alone=alone) or never_started(run, since, alone=alone))
    ]


def process_is_gone(run: FlowRun, *, alone: bool) -> bool:
    """Whether the process that a worker of this machine started for a flow run is gone; False where that cannot be known.

    alone: no other machine's worker is up, so that a run which names no machine is this one's. After a restart of the machine another
    process may have its number: one that began long after the run did.
    """
    pid = (run.infrastructure_pid or "").rpartition(":")[2]
    if not pid.isdigit() or machine_of(run) not in ((socket.gethostname(), "") if alone else (socket.gethostname(),)):
        return False
    began = began_at(int(pid))
    return began is None or (run.state is not None and began > run.state.timestamp.timestamp() + CLOCK_S)


def machine_of(run: FlowRun) -> str:
    """The machine of a flow run's process; empty before it has begun."""
    return str(run.labels.get(MACHINE) or (run.infrastructure_pid or "").rpartition(":")[0])


def never_started(run: FlowRun, worker_since: float | None, *, alone: bool) -> bool:
    """Whether a run was taken by a worker that died before it started a process.

    worker_since: when the worker of this machine began, seconds since 1970; None where none runs. alone: no other worker is up, so that
    whoever took the run before then is dead.
    """
    if run.state is None or not run.state.is_pending() or run.infrastructure_pid or run.work_pool_name != POOL:
        return False
    taken = run.state.timestamp.timestamp()
    return time.time() - taken > START_S or (alone and (worker_since is None or taken < worker_since))


SILENCE_S = 300.0
"""Without a heartbeat, after which a run of another machine counts as dead. HEARTBEAT_S in flows/service/up.py is a tenth."""


def crash_lost_runs(client: SyncPrefectClient, store: Path, identities: Sequence[UUID]) -> list[UUID]:
    """Set those of the flow runs to Crashed whose process is gone, or of whose machine nothing is heard; which they were."""
    lost, alone = [], {worker.name for worker in online_workers(client)} <= {worker_name(store)}
    for start in range(0, len(identities), 200):
        some = FlowRunFilter.model_validate(
            {"id": {"any_": list(identities[start : start + 200])}, "state": {"type": {"any_": BUSY}}}
        )
        runs = client.read_flow_runs(flow_run_filter=some, limit=200)
        lost += [run for run in runs if process_is_gone(run, alone=alone) or _is_silent(client, run)]
    for run in lost:
        _crash_by_name(str(run.id))
    return [run.id for run in lost]


def _is_silent(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a run of another machine went on for long and has sent no heartbeat of late."""
    if machine_of(run) in ("", socket.gethostname()) or run.state is None or not run.state.is_running():
        return False
    since = datetime.now(UTC) - timedelta(seconds=SILENCE_S)
    if run.state.timestamp > since:
        return False
    wanted = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        "occurred": {"since": since.isoformat()},
    }
    answer = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1})
    return not answer.json()["events"]


def began_at(pid: int) -> float | None:
    """When a process began, seconds since 1970; None for one that is gone."""
    try:
        return None if mark_of(pid) is None else psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def crash_marked(store: Path, mark: FlowMark) -> None:
    """Set a killed flow run and its tasks to Crashed and forget its mark."""
    # Without a server of `up`: one that asks for a secret, which Prefect's own for the moment does not.
    with temporary_server(lambda: None):
        _crash_by_name(mark.flow_run)
    forget_mark(store, mark)


def _crash_by_name(flow_run: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(flow_run)  # type: ignore[arg-type]
        except ObjectNotFound:
            return
        _crash_tasks(client, run)
        if run.state is not None and not run.state.is_final():
            client.set_flow_run_state(run.id, Crashed(message=GONE), force=True)


def _crash_tasks(client: SyncPrefectClient, run: FlowRun) -> None:
    state = TaskRunFilterState.model_validate({"type": {"any_": BUSY}})
    within = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    for task in client.read_task_runs(flow_run_filter=within, task_run_filter=TaskRunFilter(state=state), limit=200):
        client.set_task_run_state(task.id, Crashed(message=GONE), force=True)


def open_journal_findings(store: Path, tracking_uri: str | None) -> list[Finding]:
    """Runs that MLflow shows as running and that nothing computes any more."""
    marks = [mark for mark in all_marks(store) if mark.alive]
    found = []
    for folder in sorted((store / "journals").glob("*")):
        dead = [path.stem for path in sorted(folder.glob("*.jsonl")) if not _ended(path) and not _alive(store, path, marks)]
        if dead:
            found.append(
                Finding(
                    f"run {folder.name} is still open in MLflow ({', '.join(dead)}), but {GONE}; dreampolish doctor --mend",
                    partial(close_journals, store=store, folder=folder, names=dead, tracking_uri=tracking_uri),
                )
            )
    return found


def close_journals(store: Path, folder: Path, names: Sequence[str], tracking_uri: str | None) -> None:
    """Mark journals' runs KILLED; sent to the tracker now, or with the next run when it is away."""
    place = place_from_store(store, tracking_uri)
    for name in names:
        journal = Journal(folder, name, name, {})
        journal.end("KILLED")
        journal.send(place)


def _ended(path: Path) -> bool:
    """Whether a journal closes its run; a quote inside a value is escaped, so that this cannot be part of a prompt."""
    closing = b'"status":"'
    with path.open("rb") as file:
        file.seek(-min(TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
        if closing in file.read():
            return True
        file.seek(0)
        return closing in file.read()


TAIL = 4096
"""Bytes at a journal's end in which the line that closes it nearly always stands."""


def _alive(store: Path, journal: Path, marks: Sequence[FlowMark]) -> bool:
    """Whether something may still write a journal: for a stage's its lock is held, for a run's a living flow names it, or none yet."""
    run = journal.parent.name
    # What a study or a benchmark writes is named by no run; its flow's mark names none either.
    if any(mark.run == run or (mark.run == "" and not record_path(store, run).exists()) for mark in marks):
        return True
    locks = f"run-{run}" if journal.stem == PARENT_JOURNAL else f"{journal.stem}*"
    return any(is_locked(path) for path in (store / "locks").glob(locks))


UP = "dreampolish up"


def process_findings(store: Path) -> list[Finding]:
    """Services that were started and not stopped, and are gone or do not answer. Nothing when none was ever started."""
    noted = {name: read_service(store, name) for name in SERVICES}
    found = []
    for name, service in noted.items():
        if service is not None and not service.alive:
            found.append(_gone(store, name, service))
        elif service is not None and service.url and not listens(service.url):
            found.append(Finding(f"the {WORDS[name]} runs but does not answer at {service.url}; dreampolish down, then {UP}"))
    return found


def _gone(store: Path, name: ServiceName, service: Service) -> Finding:
    line = f"the {WORDS[name]} is gone (process {service.process.pid} ended); {UP}"
    # Without a server commands work on its files; a worker's absence is reported until there is one again.
    return Finding(line, None if name == "worker" else partial(forget_service, store, name))


def secret_findings(store: Path) -> list[Finding]:
    """Whether the servers that run for a store take its secret, and nobody without it. Nothing when none answers."""
    found = []
    path, secret = secret_path(store), read_secret(store)
    if secret is not None and path.stat().st_mode & 0o077:
        found.append(Finding(f"others can read the secret in {path}; chmod 600 {path}", partial(path.chmod, 0o600)))
    services = [read_service(store, name) for name in ("server", "mlflow", "watch")]
    for service in services:
        if service is not None and service.alive and listens(service.url):
            with suppress(httpx.HTTPError):
                found += _closed_wrongly(service, path, secret)
    return found


def _closed_wrongly(service: Service, path: Path, secret: str | None) -> list[Finding]:
    about = f"the {WORDS[service.name]} at {service.url}"
    if lets_in(service, None):
        return [Finding(f"{about} answers without a secret, so any web page can use it; dreampolish down, then {UP}")]
    if secret is None:
        return [Finding(f"{about} runs, but its secret is missing ({path}); {UP} makes a new one and starts it again")]
    if not lets_in(service, secret):
        return [Finding(f"{about} runs, but does not take the secret in {path}; dreampolish down, then {UP}")]
    return []


def server_trouble(url: str, error: Exception, is_known: bool) -> list[Finding]:
    """Why a server that was to be asked could not be. is_known: its secret is reported already."""
    if not is_refusal(error):
        # Every other kind of trouble with a server means the same to the user.
        return [Finding(f"the Prefect server at {url} gives no answer ({type(error).__name__}); {UP}")]
    if is_known:
        return []
    known = (
        "PREFECT_API_AUTH_STRING is wrong" if os.environ.get("PREFECT_API_AUTH_STRING") else "no PREFECT_API_AUTH_STRING is set"
    )
    remedy = "type the export line that dreampolish up printed, or unset PREFECT_API_URL to use this store's server"
    return [Finding(f"the Prefect server at {url} runs, but asks for a secret and {known}; {remedy}")]


def server_findings(store: Path) -> list[Finding]:
    """What a server that answers lacks: pool, worker, slot, deployments."""
    with get_client(sync_client=True) as client:
        return [*_pool_findings(client), *_slot_findings(client, store), *_deployment_findings(client)]


PAUSES_S = (1.0, 3.0)
"""A server on a busy machine may let a question wait for too long once."""


def asked_again(question: Callable[[], list[Finding]]) -> list[Finding]:
    """What a server answers. A question without an answer is asked twice more, one that is refused is not. Raises what the last one did."""
    for pause in PAUSES_S:
        try:
            return question()
        except httpx.HTTPError as error:
            if is_refusal(error):
                raise
        time.sleep(pause)
    return question()


def _pool_findings(client: SyncPrefectClient) -> list[Finding]:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        return [Finding(f"Prefect has no work pool {POOL}, so no deployment can run; {UP}")]
    found = [Finding(f"the work pool {POOL} is paused: nothing in it begins; {UP}")] if pool.is_paused else []
    if not any(worker.status == "ONLINE" for worker in client.read_workers_for_work_pool(POOL)):
        waiting = _waiting(client)
        runs = f"{waiting} runs wait" if waiting > 1 else "1 run waits" if waiting else "deployed runs would wait"
        found.append(Finding(f"no worker is up: {runs} for one; {UP}"))
    return found


def _waiting(client: SyncPrefectClient) -> int:
    state = FlowRunFilterState.model_validate({"type": {"any_": [StateType.SCHEDULED, StateType.PENDING]}})
    return len(client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), limit=200))


def _slot_findings(client: SyncPrefectClient, store: Path) -> list[Finding]:
    try:
        slot = client.read_global_concurrency_limit_by_name(GPU_SLOT)
    except ObjectNotFound:
        return [Finding(f"Prefect has no GPU slot {GPU_SLOT}: runs on a GPU are refused; {UP}")]
    if slot.active_slots > 0 and not any(mark.alive for mark in all_marks(store)):
        return [
            Finding(
                f"the GPU slot is held, but no run is alive: it frees itself within {LEASE_S} s; at once by dreampolish doctor --mend",
                free_slot,
            )
        ]
    return []


def free_slot() -> None:
    """Give the GPU slot back."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(GPU_SLOT, GlobalConcurrencyLimitUpdate(active_slots=0))


def _deployment_findings(client: SyncPrefectClient) -> list[Finding]:
    there = {deployment.name for deployment in client.read_deployments(limit=200)}
    missing: Sequence[str] = [name for name in DEPLOYMENTS if name not in there]
    return (
        [Finding(f"Prefect does not have the deployment{'s' * (len(missing) > 1)} {', '.join(missing)}; {UP}")]
        if missing
        else []
    )
