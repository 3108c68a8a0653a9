"""Prefect and MLflow in one PostgreSQL database, each in a schema of its own, which keeps their migrations apart.

The address holds a password: servers get it through their environment, and no message repeats it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from schemas.service import ServiceSettings, ServiceUrl
from stages.runtime.errors import StageError

if TYPE_CHECKING:
    from sqlalchemy import URL

NAME = "dreampolish"
"""Of the database, where the address names none."""
PREFECT_SCHEMA, MLFLOW_SCHEMA = "prefect", "mlflow"
ANSWER_S = 15
"""For the server to let us in."""
POOL_SIZE = 20
"""Connections that Prefect's server keeps; its own default of 5 is waited for when some ten workers ask at once."""


def prefect_database(settings: ServiceSettings) -> dict[str, str]:
    """The environment by which Prefect's server uses the settings' database; nothing without one."""
    if settings.database is None:
        return {}
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": _text(_for_asyncpg(_address(settings.database))),
        # Prefect looks for the extension pg_trgm in `public`.
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH": f"{PREFECT_SCHEMA},public",
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": str(POOL_SIZE),
    }


def mlflow_database(settings: ServiceSettings) -> str | None:
    """MLflow's address of the settings' database; None without one."""
    if settings.database is None:
        return None
    address = _address(settings.database).set(drivername="postgresql+psycopg")
    return _text(address.update_query_dict({"options": f"-csearch_path={MLFLOW_SCHEMA}"}))


def prepare_database(settings: ServiceSettings) -> None:
    """Make the database and both schemas where they are not there. Raises StageError in one line, without the password."""
    if settings.database is None:
        return
    if find_spec("psycopg") is None or find_spec("asyncpg") is None:
        raise StageError("PostgreSQL needs the packages psycopg and asyncpg", None, "pip install 'dreampolish[postgres]'")
    import psycopg

    address = _address(settings.database)
    try:
        _make_schemas(address)
    except psycopg.OperationalError as error:
        if "does not exist" not in str(error) or str(address.database) not in str(error):
            raise _refused(address, error) from None
        with _errors_in_one_line(address):
            _make_database(address)
            _make_schemas(address)
    except psycopg.Error as error:
        raise _refused(address, error) from None


def shown(url: ServiceUrl) -> str:
    """An address in a message: host, port and database."""
    address = _address(url)
    return f"{address.host}:{address.port or 5432}/{address.database}"


@contextmanager
def _errors_in_one_line(address: "URL") -> Iterator[None]:
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise _refused(address, error) from None


def _refused(address: "URL", error: Exception) -> StageError:
    reason = " ".join(str(error).split())[-200:]
    if address.password:
        reason = reason.replace(str(address.password), "***")
    where = f"{address.host}:{address.port or 5432}/{address.database}"
    remedy = "see that it runs, that user and password are right and that the user may create schemas in it"
    return StageError(f"the database {where} cannot be used: {reason}", None, remedy)


def _address(url: ServiceUrl) -> "URL":
    from sqlalchemy import make_url

    address = make_url(url.get_secret_value()).set(drivername="postgresql")
    return address if address.database else address.set(database=NAME)


def _for_asyncpg(address: "URL") -> "URL":
    """libpq's `sslmode` is asyncpg's `ssl`, with the same values."""
    query = {("ssl" if name == "sslmode" else name): value for name, value in address.query.items()}
    return address.set(drivername="postgresql+asyncpg", query=query)


def _text(address: "URL") -> str:
    return address.render_as_string(hide_password=False)


def _connection(address: "URL") -> Any:
    import psycopg

    return psycopg.connect(_text(address), autocommit=True, connect_timeout=ANSWER_S)


def _make_database(address: "URL") -> None:
    import psycopg
    from psycopg import sql

    with _connection(address.set(database="postgres")) as connection:
        try:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(str(address.database))))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return  # another machine's `up` was faster


def _make_schemas(address: "URL") -> None:
    from psycopg import sql

    with _connection(address) as connection:
        for schema in (PREFECT_SCHEMA, MLFLOW_SCHEMA):
            if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None:
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'").fetchone() is None:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public")
