"""DVC's graph is the pipeline's graph, and its command gives the same artifacts as the run."""

import json
from pathlib import Path

import pytest
import yaml

from flows.dvc_stage import run_dvc_stage
from flows.runs import new_run
from schemas.presets import ConfigError
from schemas.runs import PARENTS, STAGES
from stages.entry import run_one
from stages.fingerprint import PROJECT


def test_both_graphs_are_the_same() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == list(STAGES)
    for name, stage in stages.items():
        parents = [Path(dependency).stem for dependency in stage["deps"] if dependency.startswith("outputs/dvc/")]
        assert tuple(parents) == PARENTS[name]
        assert stage["cmd"] == f"python -m flows.dvc_stage {name}"
        assert [next(iter(output)) for output in stage["outs"]] == [f"outputs/dvc/{name}.json"]


def test_deployments_name_flows_that_exist() -> None:
    import importlib

    for deployment in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert hasattr(importlib.import_module(module), name)


@pytest.mark.usefixtures("priors_folder", "tracker")
def test_dvc_and_a_run_meet_in_the_store(store: Path, stand_ins: dict, calls: list[str]) -> None:
    Path("params.yaml").write_text("prompt: a red armchair\npreset: smoke\noverrides: []\n")
    record = new_run(store, "a red armchair", "smoke", [], None)
    by_run = run_one("reference", stand_ins["reference"], record.run, [], None, False)
    by_dvc = json.loads(run_dvc_stage("reference", Path("params.yaml")).read_text())
    assert calls == ["reference"]
    assert by_dvc["fingerprint"] == by_run.fingerprint
    assert by_dvc["image"]["sha256"] == by_run.image.sha256  # type: ignore[attr-defined]
    run_dvc_stage("nerf", Path("params.yaml"))
    assert calls == ["reference", "nerf"]


def test_wrong_params_are_one_line(store: Path) -> None:
    Path("params.yaml").write_text("prompt: a chair\npreset: smoke\noverides: []\n")
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        run_dvc_stage("reference", Path("params.yaml"))
