"""Redis between several Prefect servers on one database: events, automations and background services know of each other's work."""

from importlib.util import find_spec

from schemas.service import ServiceSettings
from stages.runtime.errors import StageError


def message_environment(settings: ServiceSettings) -> dict[str, str]:
    """What makes a Prefect server use the settings' Redis; nothing without one. Raises StageError without the package for it."""
    if settings.messages is None:
        return {}
    if find_spec("prefect_redis") is None:
        raise StageError("Redis messages need the package prefect-redis", None, "pip install 'dreampolish[redis]'")
    url = settings.messages.get_secret_value()
    return {
        "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_REDIS_MESSAGING_URL": url,
        "PREFECT_SERVER_DOCKET_URL": url,
    }
