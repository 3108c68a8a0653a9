"""What is wrong with what `dreampolish up` started: servers, worker, pool, GPU slot, deployments."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from flows.doctor_findings import Finding
from flows.services_gpu import GPU_SLOT, LEASE_S
from flows.services_marks import all_marks
from flows.services_setup import DEPLOYMENTS, POOL
from flows.services_state import SERVICES, WORDS, Service, ServiceName, forget_service, listens, read_service

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
    # Without a server commands work on its files; a worker's absence is worth telling until there is one again.
    return Finding(line, None if name == "worker" else partial(forget_service, store, name))


def server_findings(store: Path) -> list[Finding]:
    """What a server that answers lacks: pool, worker, slot, deployments."""
    with get_client(sync_client=True) as client:
        return [*_pool_findings(client), *_slot_findings(client, store), *_deployment_findings(client)]


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
    if slot.active_slots > 0 and not any(mark.process.alive for mark in all_marks(store)):
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
