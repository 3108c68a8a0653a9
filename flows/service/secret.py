"""The secret that closes a store's servers to everybody else: one line in `<store>/services/secret`. Imports nothing heavy.

Servers and clients get it through their environment, which only their own user can read; never as an argument, a parameter or a log
line. The line reads `dreampolish:<random>`: user name and password of HTTP basic authentication, and what Prefect's page asks for.
"""

import secrets
import shlex
from pathlib import Path

from dreampolish.optim.atomic_files import write_atomically
from flows.service.processes import private_folder, services_folder

USER = "dreampolish"
WATCH_SECRET = "DREAMPOLISH_WATCH_SECRET"
"""Environment variable in which the server of flows/report/live is told the secret; it forgets it once it has read it."""
LOOPBACK_NAMES = ("127.0.0.1", "localhost")
"""What a browser on this machine may call the servers."""


def secret_path(store: Path) -> Path:
    """Where a store's secret lies."""
    return services_folder(store) / "secret"


def new_secret() -> str:
    """A fresh secret of 256 random bits."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def make_secret(store: Path) -> tuple[str, bool]:
    """The store's secret and whether it was made just now; the file is its owner's alone."""
    path = secret_path(store)
    private_folder(path.parent)
    known = read_secret(store)
    if known is not None:
        path.chmod(0o600)
        return known, False
    secret = new_secret()
    write_atomically(path, f"{secret}\n".encode(), 0o600)
    return secret, True


def read_secret(store: Path) -> str | None:
    """The store's secret; None when there is none that could be used."""
    try:
        text = secret_path(store).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    user, _, password = text.partition(":")
    return text if user == USER and password and text.isprintable() and " " not in text else None


def prefect_environment(secret: str) -> dict[str, str]:
    """What Prefect's client needs to be let in."""
    return {"PREFECT_API_AUTH_STRING": secret}


def tracker_environment(secret: str) -> dict[str, str]:
    """What MLflow's client needs to be let in."""
    user, _, password = secret.partition(":")
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def server_environment(secret: str, port: int) -> dict[str, str]:
    """What makes a Prefect server on a port ask for the secret, and no page but its own a friend of it."""
    return {
        **prefect_environment(secret),
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(own_origins(port)),
    }


def own_hosts(port: int) -> list[str]:
    """The Host headers of requests that were meant for a server on this port."""
    return [f"{name}:{port}" for name in LOOPBACK_NAMES]


def own_origins(port: int) -> list[str]:
    """The origins of a server's own pages."""
    return [f"http://{host}" for host in own_hosts(port)]


def export_line(store: Path, api: str) -> str:
    """What a user types to reach the Prefect server from any folder; it names the secret's file, not the secret."""
    return f'export PREFECT_API_URL={api} PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(secret_path(store)))})"'


def is_refusal(error: BaseException) -> bool:
    """Whether an error of Prefect's client means that the server does not take the secret."""
    return getattr(getattr(error, "response", None), "status_code", None) == 401
