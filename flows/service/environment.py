"""The environment that keeps the tools silent, offline and inside the store. To be called before Prefect is imported."""

import logging
import os
import warnings
from pathlib import Path

from flows.service.processes import api_url, live_url, remove_settings_file
from flows.service.secret import prefect_environment, read_secret, tracker_environment
from stages.runtime.files import database_uri

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # torch's OpenMP threads spin at barriers and starve any neighbour.
    "OMP_WAIT_POLICY": "PASSIVE",
    # What cuBLAS needs for `deterministic`.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "GOMP_SPINCOUNT": "0",
}


def quiet_environment(store: Path) -> None:
    """Set what is not already set; Prefect's home goes into the store. What `dreampolish up` started for this store is used."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" not in os.environ:
        os.environ.update({name: value for name, value in prefect_home(store).items() if name not in os.environ})
    _use_services(store)
    warnings.filterwarnings("ignore")
    for name in ("prefect", "alembic", "mlflow", "httpx", "diffusers", "transformers", "uvicorn", "trimesh", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def prefect_home(store: Path) -> dict[str, str]:
    """Prefect's home inside a store; also its database, where the letters of the path would lead Prefect's own address elsewhere."""
    home = store / "prefect"
    uri = database_uri(home / "prefect.db", "sqlite+aiosqlite")
    escaped = uri != f"sqlite+aiosqlite:///{home}/prefect.db"
    return {"PREFECT_HOME": str(home), **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": uri} if escaped else {})}


def _use_services(store: Path) -> None:
    """Point Prefect and MLflow to the servers that run for this store; without them both work on files in the store."""
    server, tracker, secret = live_url(store, "server"), live_url(store, "mlflow"), read_secret(store)
    if server is None:
        remove_settings_file(Path.cwd(), None)
    elif os.environ.setdefault("PREFECT_API_URL", api_url(server)) == api_url(server) and secret is not None:
        # The secret goes to our own servers only, and never to one that a user names.
        os.environ.update(prefect_environment(secret))
    if tracker is not None and os.environ.setdefault("MLFLOW_TRACKING_URI", tracker) == tracker and secret is not None:
        os.environ.update(tracker_environment(secret))
