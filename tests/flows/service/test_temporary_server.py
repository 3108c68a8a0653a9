"""A command's own Prefect server outlives what ends the command, until the end is reported."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from stages.runtime.files import PROJECT

STOPPED = """
import os, signal, sys, time
from pathlib import Path
from flows.service.environment import quiet_environment
quiet_environment(Path(sys.argv[1]))
from prefect import flow
from flows.service.temporary_server import temporary_server
from stages.runtime.signals import StoppedError, stop_on_signals

@flow(persist_result=False)
def stopped():
    with stop_on_signals() as stop:
        os.killpg(0, signal.SIGTERM)
        time.sleep(1)
        stop.check("the rest")

try:
    with temporary_server(lambda: None), stop_on_signals():
        stopped()
except StoppedError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_signal_to_the_whole_group_is_reported(tmp_path: Path) -> None:
    """`timeout 60 dreampolish run` signals every process of the command; its flow run must not stay Running."""
    store = tmp_path / "store"
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    ended = subprocess.run(
        [sys.executable, "-c", STOPPED, str(store)], cwd=tmp_path, env={**bare, "PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, start_new_session=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped before the rest\n", "")
    with closing(sqlite3.connect(store / "prefect" / "prefect.db")) as database:
        assert database.execute("SELECT state_name FROM flow_run").fetchall() == [("Crashed",)]
