"""A worker of another machine, or of another GPU: it serves the pool of a service that runs elsewhere, until it is stopped."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from flows.service.backends.pool import POOL, RUN_QUEUE, make_slot, worker_command
from flows.service.processes import ProcessMark, Service, mark_of, stop, stop_runs
from flows.service.secret import prefect_environment, read_secret, tracker_environment
from schemas.config.presets import ConfigError
from stages.runtime.errors import StageError

ANSWER_S = 30.0


@dataclass(frozen=True)
class Elsewhere:
    """A service that runs elsewhere. api: of its Prefect, ending in /api; tracker: its MLflow, or None: figures stay in journals."""

    api: str
    tracker: str | None
    secret: str


def service_elsewhere(store: Path, api: str, tracker: str | None, secret_file: Path | None) -> Elsewhere:
    """What the options name. The secret comes from a file, PREFECT_API_AUTH_STRING or the store, in that order. Raises ConfigError."""
    if secret_file is not None:
        try:
            secret: str | None = secret_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"{secret_file} cannot be read; copy <store>/services/secret of the machine of `up` there"
            ) from None
    else:
        secret = os.environ.get("PREFECT_API_AUTH_STRING") or read_secret(store)
    if not secret:
        raise ConfigError("no secret for that server; --secret-file names a copy of <store>/services/secret of its machine")
    address = api.rstrip("/")
    return Elsewhere(address if address.endswith("/api") else f"{address}/api", tracker, secret)


def serve(store: Path, service: Elsewhere, environment: Mapping[str, str], at_once: int) -> int:
    """Be a worker in this folder until it ends or is stopped; its runs write checkpoints first. Its exit code.

    environment: of its runs, beside the service's addresses. Raises StageError where the service cannot be reached.
    """
    refuse_unreachable(service)
    os.environ.update({"PREFECT_API_URL": service.api, **prefect_environment(service.secret)})
    make_slot()
    client = {"PREFECT_API_URL": service.api, "PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true"}
    secrets = {**prefect_environment(service.secret), **tracker_environment(service.secret)}
    # Only whole runs: a batch of the pool waits in the other queue, and would fill this worker's places.
    limits = ["--work-queue", RUN_QUEUE, "--limit", str(at_once)]
    process = subprocess.Popen(
        [sys.executable, *worker_command("process"), "--name", attached_name(store, Path.cwd()), *limits],
        env={**os.environ, **environment, **client, **secrets},
        stdin=subprocess.DEVNULL,
        # Ctrl-C is for this command, which asks the runs to end one by one.
        start_new_session=True,
    )
    worker = Service("worker", mark_of(process.pid) or ProcessMark(process.pid, ""), "")
    try:
        return process.wait()
    except BaseException:
        stop_runs(worker)
        raise
    finally:
        stop(store / "no-service", worker)
        process.wait()


def attached_name(store: Path, folder: Path) -> str:
    """A worker's name: the same in the same folder, so that one that is started again takes its own place."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f"{POOL}-{socket.gethostname()}-{hashlib.sha256(f'{store}|{folder}|{devices}'.encode()).hexdigest()[:6]}"


def refuse_unreachable(service: Elsewhere) -> None:
    """Raise StageError where Prefect does not answer, does not take the secret or has no pool."""
    user, _, password = service.secret.partition(":")
    try:
        with httpx.Client(auth=(user, password), timeout=ANSWER_S, trust_env=False) as client:
            answer = client.get(f"{service.api}/work_pools/{POOL}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        tunnel = "ssh -N -L 4200:127.0.0.1:4200 -L 5000:127.0.0.1:5000 MACHINE"
        raise StageError(
            f"no Prefect server answers at {service.api} ({type(error).__name__})", None, f"open the way: {tunnel}"
        ) from None
    if answer.status_code == 401:
        raise StageError(f"the Prefect server at {service.api} does not take this secret", None, "copy its machine's anew")
    if answer.status_code == 404:
        raise StageError(f"the Prefect server at {service.api} has no work pool {POOL}", None, "dreampolish up on its machine")
    if answer.status_code != 200:
        raise StageError(f"the Prefect server at {service.api} answers {answer.status_code}", None, "look at its log")
