"""What the Prefect server of a store needs besides running: work pool, queues, GPU slot, deployments, automations. All of it idempotent."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from dreampolish.optim.atomic_files import write_atomically
from flows.service.backends.pool import BATCH_QUEUE, GPU_SLOT, POOL, RUN_QUEUE, make_pool, make_slot
from flows.service.processes import Service, api_url, services_folder
from schemas.service import ServiceSettings
from stages.runtime.errors import StageError
from stages.runtime.files import PROJECT, project_file

if TYPE_CHECKING:
    import torch
    from prefect.client.orchestration import SyncPrefectClient

DEPLOYMENTS = ("full", "texture", "polish", "ablation", "benchmark", "priors", "batch")


def worker_name(store: Path) -> str:
    """Of the worker that `up` starts on this machine for a store."""
    return f"{POOL}-{socket.gethostname()}-{hashlib.sha256(str(store).encode()).hexdigest()[:6]}"


def set_up(server_url: str, settings: ServiceSettings, runs_at_once: int) -> None:
    """Make or renew pool, queues and GPU slot, and register the deployments of prefect.yaml and the automations.

    Prefect's client must know the server. Raises StageError when a deployment cannot be registered.
    """
    make_pool(settings)
    _make_queues(runs_at_once)
    make_slot()
    _register(server_url)
    from flows.runs.notices import register_automations

    register_automations()


def prefect_url() -> str | None:
    """The API that Prefect's client talks to; None where it would start a server of its own for the moment."""
    from prefect.settings import get_current_settings

    return get_current_settings().api.url or None


def pause_pool_without_others(store: Path) -> None:
    """Keep the pool's runs from starting, unless workers of other machines serve it: those go on."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolUpdate

    with get_client(sync_client=True) as client:
        if not any(worker.name != worker_name(store) for worker in online_workers(client)):
            client.update_work_pool(POOL, WorkPoolUpdate(is_paused=True))


def online_workers(client: "SyncPrefectClient") -> list[Any]:
    """The workers that serve our pool now; none where there is no pool."""
    from prefect.exceptions import ObjectNotFound

    try:
        return [worker for worker in client.read_workers_for_work_pool(POOL) if worker.status == "ONLINE"]
    except ObjectNotFound:
        return []


def _make_queues(runs_at_once: int) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        for name, limit in ((RUN_QUEUE, runs_at_once), (BATCH_QUEUE, None)):
            try:
                queue = client.read_work_queue_by_name(name, work_pool_name=POOL)
                client.update_work_queue(queue.id, concurrency_limit=limit)
            except ObjectNotFound:
                client.create_work_queue(name, concurrency_limit=limit, work_pool_name=POOL)


def _register(server_url: str) -> None:
    file = project_file("prefect.yaml")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    environment = {**os.environ, "PREFECT_API_URL": api_url(server_url), "PREFECT_LOGGING_LEVEL": "ERROR", "NO_COLOR": "1"}
    ended = subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = [line.strip() for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
        raise StageError(
            f"the deployments could not be registered: {lines[-1] if lines else 'no reason given'}", None, "report it"
        )


ANSWER_S = 5.0


def set_up_digest(settings: ServiceSettings, runs_at_once: int) -> str:
    """Over everything that pool, queues and deployments are made of: settings, the deployments' file, and the code of their parameters."""
    sources = sorted(
        [*(PROJECT / "flows").rglob("*.py"), *(PROJECT / "schemas").rglob("*.py"), *project_file("configs").glob("*.yaml")]
    )
    told = [settings.model_dump(mode="json"), runs_at_once, version("prefect"), [path.name for path in sources]]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for path in (project_file("prefect.yaml"), *sources):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def note_set_up(store: Path, server: Service, digest: str) -> None:
    """Note that a server was set up."""
    write_atomically(_set_up_path(store), json.dumps({"digest": digest, "started": server.process.started}).encode())


def forget_set_up(store: Path) -> None:
    """Before it is set up anew: a kill half-way must not leave it noted."""
    _set_up_path(store).unlink(missing_ok=True)


def is_set_up(store: Path, server: Service, secret: str, digest: str) -> bool:
    """Whether this very server was set up with the same, and still has its pool, not paused, and its deployments."""
    try:
        noted = json.loads(_set_up_path(store).read_bytes())
        if noted != {"digest": digest, "started": server.process.started}:
            return False
        user, _, password = secret.partition(":")
        with httpx.Client(base_url=api_url(server.url), auth=(user, password), timeout=ANSWER_S, trust_env=False) as client:
            pool: Any = client.get(f"/work_pools/{POOL}").raise_for_status().json()
            there: Any = client.post("/deployments/filter", json={}).raise_for_status().json()
        return not pool["is_paused"] and set(DEPLOYMENTS) <= {deployment["name"] for deployment in there}
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError):
        return False


def _set_up_path(store: Path) -> Path:
    return services_folder(store) / "set-up.json"


LEASE_S = 60
"""A dead holder blocks for this long at most."""


@contextmanager
def gpu_slot(device: "torch.device") -> Iterator[None]:
    """Hold the slot while a GPU is used; on the CPU nothing is asked.

    With a server of its own (`dreampolish up`) the slot must be there, else StageError; without one it is made on the spot.
    """
    if device.type == "cpu":
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU_SLOT)
        except ObjectNotFound:
            if prefect_url() is not None:
                raise StageError(f"Prefect has no GPU slot {GPU_SLOT}", None, "dreampolish up makes it") from None
            client.upsert_global_concurrency_limit_by_name(GPU_SLOT, 1)
    with concurrency(GPU_SLOT, occupy=1, lease_duration=LEASE_S, strict=True, raise_on_lease_renewal_failure=False):
        yield
