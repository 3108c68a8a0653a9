"""Where MLflow's server keeps files: a folder of the store, or an object store. Clients send them through the server and need no key."""

from importlib.util import find_spec
from pathlib import Path

from schemas.service import ServiceSettings
from stages.runtime.errors import StageError


def artifacts_destination(store: Path, settings: ServiceSettings) -> str:
    """What MLflow's server is told. Keys and address of the object store are in the environment, as boto3 has them
    (AWS_ACCESS_KEY_ID, MLFLOW_S3_ENDPOINT_URL). Raises StageError without the package for it."""
    if settings.artifacts is None:
        return (store / "mlartifacts").as_uri()
    if find_spec("boto3") is None:
        raise StageError("artifacts in S3 need the package boto3", None, "pip install 'dreampolish[s3]'")
    return settings.artifacts
