"""The work pool: how a worker starts a run, as a process of its machine, a container or a job of a Kubernetes cluster.

Nothing here belongs to one machine: folder, interpreter and environment of a process come from its worker (worker.py), those of a container
from its image and the settings. Templates of containers and jobs lie in deploy/.
"""

import json
import os
import socket
from importlib.util import find_spec
from typing import Any

from schemas.service import PoolType, ServiceSettings
from stages.runtime.errors import StageError
from stages.runtime.files import project_file

POOL = "dreampolish"
RUN_QUEUE = "default"
"""Of whole runs: they fill the machine, so only some go at once."""
BATCH_QUEUE = "batch"
"""Of flows that only wait for runs: they must not take a run's place."""
GPU_SLOT = "-".join(["dreampolish-gpu", socket.gethostname(), *filter(None, [os.environ.get("CUDA_VISIBLE_DEVICES")])])
"""Of this machine's GPU; of each, where workers are given one each by CUDA_VISIBLE_DEVICES."""
PACKAGES: dict[PoolType, str] = {"docker": "prefect_docker", "kubernetes": "prefect_kubernetes"}


def job_template(settings: ServiceSettings) -> dict[str, Any]:
    """What the pool's runs are made of, with the settings as its variables' defaults."""
    if settings.pool == "process":
        from prefect.workers.process import ProcessWorker

        plain: dict[str, Any] = ProcessWorker.get_default_base_job_template()
        return plain
    template: dict[str, Any] = json.loads(project_file(f"deploy/{settings.pool}.json").read_bytes())
    properties = template["variables"]["properties"]
    properties["image"]["default"] = settings.image
    properties["env"]["default"] = container_environment(settings)
    if settings.pool == "kubernetes":
        properties["namespace"]["default"] = settings.namespace
        properties["gpus"]["default"] = settings.gpus
    elif settings.gpus > 0:
        request = {"Driver": "nvidia", "Count": settings.gpus, "Capabilities": [["gpu"]]}
        properties["container_create_kwargs"]["default"] = {"device_requests": [request]}
    return template


def container_environment(settings: ServiceSettings) -> dict[str, str]:
    """What a container or job finds in its environment: addresses, no secret. That of Prefect's API it gets from its worker."""
    told = {
        "PREFECT_API_URL": settings.api,
        "MLFLOW_TRACKING_URI": settings.tracker,
        "DREAMPOLISH_STORE": settings.store,
    }
    return {name: value for name, value in told.items() if value is not None}


def refuse_without_package(pool: PoolType) -> None:
    """Raise StageError where workers of this type cannot be started, for want of a package."""
    package = PACKAGES.get(pool)
    if package is not None and find_spec(package) is None:
        raise StageError(
            f"a pool of type {pool} needs the package {package.replace('_', '-')}", None, f"pip install 'dreampolish[{pool}]'"
        )


def worker_command(pool: PoolType) -> list[str]:
    """Arguments after the interpreter that start a worker; its name and further options follow."""
    start = ["flows.service.backends.worker"] if pool == "process" else ["prefect", "worker", "start"]
    return ["-m", *start, "--pool", POOL, "--type", pool, "--install-policy", "never"]


def make_pool(settings: ServiceSettings) -> None:
    """Make the pool or renew it. Raises StageError where one of another type has its name: Prefect cannot change that."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    template, slots = job_template(settings), settings.slots
    with get_client(sync_client=True) as client:
        try:
            new = WorkPoolCreate(name=POOL, type=settings.pool, base_job_template=template, concurrency_limit=slots)
            client.create_work_pool(new)
        except ObjectAlreadyExists:
            there = client.read_work_pool(POOL).type
            if there != settings.pool:
                what = f"the work pool {POOL} is of type {there}, not {settings.pool}"
                raise StageError(
                    what, None, f"prefect work-pool delete {POOL}, once its runs have ended; then dreampolish up"
                ) from None
            changed = WorkPoolUpdate(base_job_template=template, is_paused=False, concurrency_limit=slots)
            client.update_work_pool(POOL, changed)


def make_slot() -> None:
    """Make this machine's GPU slot, or one of several."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_SLOT, 1)
