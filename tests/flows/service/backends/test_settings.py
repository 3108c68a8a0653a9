"""The service's settings: what is told, kept and refused, and that no password is repeated anywhere."""

from pathlib import Path

import pytest

from flows.service.backends.database import mlflow_database, prefect_database, shown
from flows.service.backends.messages import message_environment
from flows.service.backends.settings import read_settings, settings_path, told_settings, write_settings
from schemas.config.presets import ConfigError
from schemas.service import ServiceSettings
from stages.runtime.errors import StageError

DATABASE = "postgresql://dream:pw%40%25word@db.example:6432/dreams?sslmode=require"


def test_settings_are_kept_in_a_private_file_until_told_otherwise(store: Path) -> None:
    assert read_settings(store) == ServiceSettings()
    first = told_settings(store, DATABASE, ["pool=docker", "slots=12"])
    write_settings(store, first)
    assert settings_path(store).stat().st_mode & 0o777 == 0o600
    assert read_settings(store) == first
    again = told_settings(store, None, ["slots=default"])
    assert again.database == first.database
    assert (again.pool, again.slots) == ("docker", None)
    assert told_settings(store, "default", []).database is None, "back to SQLite"


def test_no_password_is_shown() -> None:
    settings = ServiceSettings.model_validate({"database": DATABASE, "messages": "redis://:word@r.example:6379/0"})
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "word" not in text
    assert settings.database is not None
    assert shown(settings.database) == "db.example:6432/dreams"


@pytest.mark.parametrize(
    ("database", "line", "message"),
    [
        ("mysql://u:hidden@h/d", "slots=1", "database takes postgresql://"),
        ("postgresql://u:hid/den@h:x/d", "slots=1", "database takes postgresql://"),
        ("postgresql:///d", "slots=1", "database takes postgresql://"),
        (None, "messages=http://:hidden@h", "messages takes redis://"),
        (None, "artifacts=/hidden", "artifacts takes s3://bucket"),
        (None, "pool=lambda", "pool Input should be 'process', 'docker' or 'kubernetes'"),
        (None, "slots=0", "slots Input should be greater"),
        (None, "hidden=1", "has no setting of that name; it has database"),
        (None, "hidden", "--set takes name=value"),
    ],
)
def test_what_is_wrong_is_one_line_without_the_value(store: Path, database: str | None, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        told_settings(store, database, [line])
    assert "hid" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(store: Path) -> None:
    write_settings(store, ServiceSettings(slots=2))
    settings_path(store).write_text('{"slots": "secret')
    with pytest.raises(ConfigError, match="remove it") as caught:
        read_settings(store)
    assert "secret" not in str(caught.value)


def test_prefect_and_mlflow_have_a_schema_each_and_the_same_password() -> None:
    settings = ServiceSettings.model_validate({"database": DATABASE})
    environment = prefect_database(settings)
    url = environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert url == "postgresql+asyncpg://dream:pw%40%25word@db.example:6432/dreams?ssl=require"
    assert environment["PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH"] == "prefect,public"
    tracker = mlflow_database(settings)
    assert tracker is not None
    assert tracker.startswith("postgresql+psycopg://dream:pw%40%25word@db.example:6432/dreams?")
    assert "options=-csearch_path%3Dmlflow" in tracker
    assert (prefect_database(ServiceSettings()), mlflow_database(ServiceSettings())) == ({}, None)


def test_an_address_without_a_database_gets_ours() -> None:
    settings = ServiceSettings.model_validate({"database": "postgres://h"})
    assert prefect_database(settings)["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://h/dreampolish"


def test_redis_is_for_events_leases_and_background_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert message_environment(ServiceSettings()) == {}
    settings = ServiceSettings.model_validate({"messages": "redis://h:6379/3"})
    monkeypatch.setattr("flows.service.backends.messages.find_spec", lambda name: None)
    with pytest.raises(StageError, match=r"prefect-redis.*pip install 'dreampolish\[redis\]'"):
        message_environment(settings)
    monkeypatch.setattr("flows.service.backends.messages.find_spec", lambda name: object())
    environment = message_environment(settings)
    assert {value for name, value in environment.items() if name.endswith("URL")} == {"redis://h:6379/3"}
    assert environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == "prefect_redis.lease_storage"
