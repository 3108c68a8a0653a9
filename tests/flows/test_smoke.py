"""The whole pipeline on the embedded priors at the smallest budgets, twice: every stage computes, then every stage is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.runs import STAGES

PROJECT = Path(__file__).parents[2]
PRIORS = [PROJECT / "priors/home" / name for name in ("text", "view", "normals", "judge")]


COMMAND = [
    sys.executable,
    "-m",
    "flows.cli",
    "run",
    "a red armchair",
    "--preset",
    "smoke",
    "--set",
    "device=cpu",
    "--json",
]
NEEDS_PRIORS = pytest.mark.skipif(
    not all(folder.is_dir() for folder in PRIORS), reason="the embedded priors are not in this checkout"
)


def environment_of(store: Path) -> dict[str, str]:
    """A user's, with this store and no Prefect server."""
    environment = {**os.environ, "DREAMPOLISH_STORE": str(store), "PYTHONPATH": str(PROJECT)}
    environment.pop("PREFECT_API_URL", None)
    environment["PREFECT_HOME"] = str(store.parent / "prefect")
    return environment


def smoke(store: Path) -> tuple[dict, str]:
    """One run of the command in a process of its own; the JSON result and what the user saw."""
    ended = subprocess.run(
        COMMAND, cwd=store.parent, env=environment_of(store), capture_output=True, text=True, check=False, timeout=900
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1]), ended.stderr


@pytest.mark.slow
@NEEDS_PRIORS
def test_a_prompt_becomes_an_asset_and_the_second_run_finds_every_stage(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, seen = smoke(store)
    assert [entry["name"] for entry in first["stages"]] == list(STAGES)
    assert [entry["state"] for entry in first["stages"]] == ["computed"] * len(STAGES)
    folder = Path(first["output"])
    assert (folder / "asset.glb").read_bytes()[:4] == b"glTF"
    assert (folder / "contact_sheet.png").stat().st_size > 1000
    assert len(list(folder.glob("turntable.*"))) == 1
    # A headline, one line a stage, perhaps a note: no warning storms.
    assert len(seen.strip().splitlines()) <= 2 * (len(STAGES) + 1), seen
    second, _ = smoke(store)
    assert [entry["state"] for entry in second["stages"]] == ["cached"] * len(STAGES)
    assert [entry["fingerprint"] for entry in second["stages"]] == [entry["fingerprint"] for entry in first["stages"]]
