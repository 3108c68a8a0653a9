"""Runs cut off and disks that fail: a small sample of `make test-faults`, each script in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from schemas.artifacts import NerfArtifact, ScoresArtifact, StageName
from schemas.runs import StageRecord
from stages.runtime.command import open_recorded, open_scores, run_one
from stages.runtime.errors import StageError
from stages.runtime.files import disk_errors_in_one_line
from stages.runtime.records import read_record
from stages.runtime.store import LocalStore
from tests.support.damage import overwrite

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
    cells += ["dmtet-scores_manifest-SIGKILL", "nerf-judging-SIGTERM"]
    ran("kill_matrix.py", "--jobs", "1", "--json", str(tmp_path / "found.json"), "--only", *cells)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [cell["wrong"] for cell in found["cells"]] == [[]] * len(cells)
    assert found["cells"][0]["states"]["texture"] == "resumed"
    assert [cell["states"][cell["stage"]] for cell in found["cells"][3:]] == ["cached", "cached"]


@pytest.mark.slow
@pytest.mark.skipif(not JUDGE.is_dir(), reason="the embedded judge is not in this checkout")
def test_cells_of_the_command_itself(tmp_path: Path) -> None:
    cells = ["dmtet-early-SIGTERM", "reference-write-SIGINT"]
    ran("commands.py", "--jobs", "1", "--json", str(tmp_path / "found.json"), "--only", *cells)
    found = json.loads((tmp_path / "found.json").read_text())["cells"]
    assert [cell["wrong"] for cell in found] == [[], []]
    dmtet = next(cell for cell in found if cell["stage"] == "dmtet")
    assert (dmtet["states"]["dmtet"], dmtet["states"]["neus"]) == ("resumed", "cached")


@pytest.mark.slow
def test_some_failures_of_the_disk() -> None:
    told = ran("disk_faults.py", "--every", "9")
    assert "'rename EIO': 0" not in told


def one_stage(name: StageName, run: str, store: Path) -> StageRecord:
    """How a stage of a run went, alone and without Prefect."""
    run_one(CHAIN[name], run, [], tracking_uri=None, show_progress=False)
    return read_record(store, run).stages[name]


@pytest.mark.usefixtures("stand_ins", "priors_folder")
def test_a_cut_while_scores_are_made_costs_the_scores_alone(
    store: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    one_stage("reference", record.run, store)
    publish = LocalStore.publish

    def cut(self: LocalStore, work: Path, artifact: Any) -> Any:
        if isinstance(artifact, ScoresArtifact):
            raise KeyboardInterrupt
        return publish(self, work, artifact)

    monkeypatch.setattr(LocalStore, "publish", cut)
    with pytest.raises(KeyboardInterrupt):
        one_stage("nerf", record.run, store)
    monkeypatch.setattr(LocalStore, "publish", publish)
    assert not list((store / "work").iterdir()) and not (store / "scores").exists()
    assert "nerf" not in read_record(store, record.run).stages
    entry = one_stage("nerf", record.run, store)
    assert (calls, entry.state) == (["reference", "nerf"], "cached")
    done = read_record(store, record.run)
    assert open_recorded(NerfArtifact, done, store).fingerprint == entry.fingerprint
    scores = open_scores("nerf", done, store)
    assert scores is not None and scores.metrics["psnr"] == entry.metrics["psnr"]
    journal = next((store / "journals" / record.run).glob("nerf-*.jsonl")).read_text()
    told = [json.loads(line)["tags"] for line in journal.splitlines() if "tags" in json.loads(line)]
    assert [tags["state"] for tags in told if "state" in tags] == ["computed"], "it computed the result, and says so"


@pytest.mark.usefixtures("stand_ins", "priors_folder")
def test_damaged_scores_are_made_anew_and_their_stage_is_not(store: Path, calls: list[str]) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    for name in ("reference", "nerf"):
        entry = one_stage(name, record.run, store)
    assert entry.scores is not None
    overwrite(next((store / "scores" / entry.scores).glob("view-*.png")), b"damaged")
    with pytest.raises(StageError, match="computes them again"):
        open_scores("nerf", read_record(store, record.run), store)
    again = one_stage("nerf", record.run, store)
    assert (calls, again.scores, again.state) == (["reference", "nerf"], entry.scores, "cached")
    assert open_scores("nerf", read_record(store, record.run), store) is not None


def test_a_disk_that_fills_up_under_safetensors_is_told_as_such() -> None:
    told = "Error while serializing: I/O error: No space left on device (os error 28)"  # safetensors' own words
    with pytest.raises(StageError, match="No space left on device.*free"), disk_errors_in_one_line(Path("/tmp")):
        raise SafetensorError(told)


def test_what_else_safetensors_says_is_left_alone() -> None:
    with pytest.raises(SafetensorError), disk_errors_in_one_line(Path("/tmp")):
        raise SafetensorError("Error while deserializing header: header too small")
