"""Logs of services stay small, and what is written goes on."""

from pathlib import Path

import pytest

from flows.store import logs
from flows.store.logs import copy_path, rotate_logs


def test_a_large_log_is_copied_aside_and_its_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 100)
    (tmp_path / "services").mkdir()
    log = tmp_path / "services/worker.log"
    with log.open("ab", buffering=0) as writer:
        for round_ in range(5):
            writer.write(f"{round_}".encode() * 101)
            rotate_logs(tmp_path)
            assert log.stat().st_size == 0
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert [copy_path(log, number).read_bytes()[:1] for number in (1, 2, 3)] == [b"4", b"3", b"2"]
    assert sorted(path.name for path in log.parent.iterdir()) == [log.name, *(f"{log.name}.{number}" for number in (1, 2, 3))]


def test_a_small_log_and_a_store_without_services_stay_as_they_are(tmp_path: Path) -> None:
    rotate_logs(tmp_path)
    (tmp_path / "services").mkdir()
    (tmp_path / "services/server.log").write_bytes(b"x" * 1000)
    rotate_logs(tmp_path)
    assert [path.name for path in (tmp_path / "services").iterdir()] == ["server.log"]
