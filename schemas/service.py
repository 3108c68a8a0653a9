"""What `dreampolish up --set` may say: database, messages, artifacts and where runs take place. No tool's own words."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

PoolType = Literal["process", "docker", "kubernetes"]
ServiceUrl = SecretStr
"""An address that may hold a password: its value is never printed."""


class ServiceSettings(BaseModel):
    """The service's settings. They are kept with the store's service, in a file that its owner alone can read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    database: ServiceUrl | None = None
    """postgresql://user:password@host:5432/name for Prefect and MLflow; without it, SQLite files in the store."""
    messages: ServiceUrl | None = None
    """redis://host:6379/0: how several Prefect servers on one database tell each other what happens; for one, its own memory does."""
    artifacts: str | None = None
    """s3://bucket/prefix for MLflow's files; without it, a folder in the store."""
    pool: PoolType = "process"
    """What a worker starts for a run: a process, a container or a job of a Kubernetes cluster."""
    slots: int | None = Field(None, ge=1, le=100_000)
    """Runs at once over all workers of the pool, as many as there are GPUs; without it, no limit but the queue's."""
    image: str = Field("dreampolish:latest", min_length=1, max_length=300, pattern=r"^[\w./:@-]+$")
    """Of containers and jobs; deploy/Dockerfile builds it."""
    namespace: str = Field("default", max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    """Of Kubernetes' jobs."""
    gpus: int = Field(0, ge=0, le=16)
    """GPUs that a container or job gets."""
    api: str | None = None
    """Where containers and jobs reach Prefect's API; without it, where this machine does."""
    tracker: str | None = None
    """Where containers and jobs reach MLflow."""
    store: str | None = None
    """The store of containers and jobs: s3://bucket/prefix, or a folder that is mounted there."""

    @field_validator("database")
    @classmethod
    def _of_postgresql(cls, value: ServiceUrl | None) -> ServiceUrl | None:
        return _with_scheme(value, ("postgresql", "postgres"))

    @field_validator("messages")
    @classmethod
    def _of_redis(cls, value: ServiceUrl | None) -> ServiceUrl | None:
        return _with_scheme(value, ("redis", "rediss"))

    @field_validator("artifacts")
    @classmethod
    def _of_s3(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "s3://bucket")
        if parts.scheme != "s3" or not parts.hostname:
            raise ValueError("takes s3://bucket or s3://bucket/prefix")
        return value

    @field_validator("api", "tracker")
    @classmethod
    def _of_http(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in ("http", "https"):
            raise ValueError("takes an address that begins with http:// or https://")
        return value


def _with_scheme(value: ServiceUrl | None, schemes: tuple[str, ...]) -> ServiceUrl | None:
    """An address of one of these kinds. Raises ValueError, which does not repeat it."""
    if value is None:
        return None
    try:
        parts = urlsplit(value.get_secret_value())
        known = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(
            f"takes {schemes[0]}://user:password@host/name; letters such as @ / % in a password are written as %40 %2F %25"
        )
    return value
