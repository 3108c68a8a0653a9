"""Runs cut off and disks that fail: a small sample of `make test-faults`, each script in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line

PROJECT = Path(__file__).parents[2]
JUDGE = PROJECT / "priors/home/judge"


def ran(script: str, *arguments: str) -> str:
    """The error stream of one of the scripts, which must end well."""
    ended = subprocess.run(
        [sys.executable, str(PROJECT / "tests/faults" / script), *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(not JUDGE.is_dir(), reason="the embedded judge is not in this checkout")
def test_some_cells_of_the_kill_matrix(tmp_path: Path) -> None:
    cells = ["texture-write-SIGKILL", "export-manifest-SIGINT", "polish-published-SIGTERM"]
    ran("kill_matrix.py", "--jobs", "1", "--json", str(tmp_path / "found.json"), "--only", *cells)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [cell["wrong"] for cell in found["cells"]] == [[], [], []]
    assert found["cells"][0]["states"]["texture"] == "resumed"


@pytest.mark.slow
@pytest.mark.skipif(not JUDGE.is_dir(), reason="the embedded judge is not in this checkout")
def test_a_cell_of_the_command_itself(tmp_path: Path) -> None:
    ran("commands.py", "--jobs", "1", "--json", str(tmp_path / "found.json"), "--only", "dmtet-early-SIGTERM")
    (cell,) = json.loads((tmp_path / "found.json").read_text())["cells"]
    assert (cell["wrong"], cell["states"]["dmtet"], cell["states"]["neus"]) == ([], "resumed", "cached")


@pytest.mark.slow
def test_some_failures_of_the_disk() -> None:
    told = ran("disk_faults.py", "--every", "9")
    assert "'rename EIO': 0" not in told


def test_a_disk_that_fills_up_under_safetensors_is_told_as_such() -> None:
    told = "Error while serializing: I/O error: No space left on device (os error 28)"  # safetensors' own words
    with pytest.raises(StageError, match="No space left on device.*free"), disk_errors_in_one_line(Path("/tmp")):
        raise SafetensorError(told)


def test_what_else_safetensors_says_is_left_alone() -> None:
    with pytest.raises(SafetensorError), disk_errors_in_one_line(Path("/tmp")):
        raise SafetensorError("Error while deserializing header: header too small")
