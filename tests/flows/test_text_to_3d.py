"""The whole flow over stand-in stages: order, states, records, outputs."""

import json
from pathlib import Path

import pytest

from flows.mesh_to_3d.texture import GEOMETRY_STAGES, texture
from flows.runs.create import new_run
from flows.text_to_3d import text_to_3d
from schemas.runs import STAGES
from stages.runtime.records import read_record

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.xdist_group("prefect"),
    pytest.mark.usefixtures("prefect_server", "tracker", "stand_ins", "priors_folder"),
]


def states(result: dict) -> list[str]:
    return [entry["state"] for entry in result["stages"]]


def test_computes_once_then_everything_is_cached(store: Path, calls: list[str]) -> None:
    first = text_to_3d(prompt="a red armchair", preset="smoke")
    second = text_to_3d(prompt="a red armchair", preset="smoke")
    assert calls == list(STAGES)
    assert states(first) == ["computed"] * len(STAGES)
    assert states(second) == ["cached"] * len(STAGES)
    assert [entry["fingerprint"] for entry in first["stages"]] == [entry["fingerprint"] for entry in second["stages"]]
    assert first["run"] != second["run"]
    for result in (first, second):
        folder = Path(result["output"])
        assert folder.name == f"a-red-armchair-{result['run']}"
        shown = ["asset.glb", "candidates.png", "contact_sheet.png", "report.html", "run.json", "turntable.png"]
        assert sorted(path.name for path in folder.iterdir()) == shown
        assert json.loads((folder / "run.json").read_text())["run"] == result["run"]


def test_a_texture_setting_reruns_texture_and_export_only(store: Path, calls: list[str]) -> None:
    first = text_to_3d(prompt="a couch", preset="smoke")
    calls.clear()
    second = texture(run=first["run"], overrides=["texture.lambda_realistic=0.8"])
    assert calls == ["texture", "export"]
    kept = len(GEOMETRY_STAGES)
    assert [entry["fingerprint"] for entry in second["stages"][:kept]] == [
        entry["fingerprint"] for entry in first["stages"][:kept]
    ]
    assert Path(second["output"]) != Path(first["output"])
    assert Path(first["output"]).is_dir()
    assert read_record(store, second["run"]).parent_run == first["run"]


def test_stale_geometry_is_named_and_refreshed_on_demand(
    store: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = text_to_3d(prompt="a couch", preset="smoke")
    calls.clear()
    texture(run=first["run"], overrides=["neus.steps=7"])
    assert "stale: neus" in capsys.readouterr().err
    assert calls == []
    texture(run=first["run"], overrides=["neus.steps=7"], refresh=True)
    assert calls == list(STAGES[STAGES.index("neus") :])


def test_task_states_are_named(store: Path) -> None:
    from prefect import get_client
    from prefect.client.schemas.sorting import TaskRunSort

    text_to_3d(prompt="a lamp", preset="smoke")
    text_to_3d(prompt="a lamp", preset="smoke")
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(sort=TaskRunSort.END_TIME_DESC, limit=2 * len(STAGES))
    names = [run.state.name for run in runs]
    assert names == ["Cached"] * len(STAGES) + ["Computed"] * len(STAGES)


def test_the_flows_task_runs_are_the_stages_own_tasks_with_their_parents(store: Path) -> None:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    from flows.runs.chain import CHAIN

    text_to_3d(prompt="a blue lamp", preset="smoke")
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["a blue lamp"])))[0]
        runs = [run for run in client.read_task_runs(limit=200) if run.flow_run_id == flow_run.id]
    by_id = {run.id: run for run in runs}
    assert {run.name: run.task_key for run in runs} == {name: CHAIN[name].task.task_key for name in STAGES}
    for run in runs:
        seen = {by_id[each.id].name for inputs in run.task_inputs.values() for each in inputs}
        assert seen == set(CHAIN[run.name].parent_names())


def test_a_run_continues_after_a_failing_stage(store: Path, calls: list[str], stand_ins: dict) -> None:
    record = new_run(store, "a table", "smoke", [], None)
    whole = stand_ins["texture"]

    def broken(stage: object, **given: object) -> None:
        raise RuntimeError("out of luck")

    stand_ins["texture"] = broken
    with pytest.raises(RuntimeError, match="out of luck"):
        text_to_3d(prompt=record.prompt, run=record.run)
    stand_ins["texture"] = whole
    done = text_to_3d(prompt=record.prompt, run=record.run)
    assert states(done) == ["cached"] * len(GEOMETRY_STAGES) + ["computed"] * 2
    assert calls == list(STAGES)
