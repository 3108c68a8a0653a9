"""Runs that begin with a user's own mesh: what is refused at the door, which stages run, and how they go on. Without Prefect."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh
from typer.testing import CliRunner

from flows.cli import app
from flows.report.settings import making_command
from flows.runs.chain import CHAIN
from flows.runs.create import new_run, stale_stages
from flows.runs.given_mesh import GivenMesh
from flows.text_to_3d import text_to_3d
from flows.texture import texture
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError
from schemas.runs import MESH_STAGES, RunRecord
from stages.runtime.command import AnyStage, run_one
from stages.runtime.records import read_record
from tests.support.gltf_files import textured_box

Table = dict[StageName, Callable[..., Artifact]]


@pytest.fixture
def plain(stand_ins: Table, priors_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in stages without Prefect; the tracker is away."""
    for task in CHAIN.values():
        monkeypatch.setattr(task, "task", without_prefect(task))
    monkeypatch.setattr("stages.runtime.tracking.journal.Journal._failure", lambda self, place, wait_s: OSError("away"))


def without_prefect(task: AnyStage) -> Any:
    return lambda call, return_state, **parents: task._as_task(call, **parents)


def made(store: Path, mesh: Path, **asked: Any) -> RunRecord:
    return new_run(store=store, prompt="a red box", preset="smoke", overrides=[], image=None, given=GivenMesh(mesh, **asked))


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    return textured_box().write(tmp_path / "box.glb")


@pytest.mark.usefixtures("plain")
def test_four_stages_run_and_each_sees_the_mesh(store: Path, mesh: Path, calls: list[str]) -> None:
    record = made(store, mesh)
    mesh.unlink()
    told = text_to_3d.fn(prompt="-", run=record.run)
    assert calls == list(MESH_STAGES)
    done = read_record(store, record.run)
    assert [entry["name"] for entry in told["stages"]] == list(MESH_STAGES)
    assert stale_stages(done, store, MESH_STAGES) == []
    text_to_3d.fn(prompt="-", run=record.run)
    assert calls == list(MESH_STAGES)


@pytest.mark.usefixtures("plain")
def test_a_mesh_is_textured_again_without_being_read_again(store: Path, mesh: Path, calls: list[str]) -> None:
    record = made(store, mesh)
    text_to_3d.fn(prompt="-", run=record.run)
    calls.clear()
    texture.fn(run=record.run, overrides=["texture.steps=3"])
    assert calls == ["texture", "export"]


@pytest.mark.usefixtures("plain")
def test_one_stage_of_such_a_run_is_computed_alone(store: Path, mesh: Path, calls: list[str]) -> None:
    record = made(store, mesh)
    text_to_3d.fn(prompt="-", run=record.run)
    calls.clear()
    for name in ("texture", "export"):
        run_one(CHAIN[name], record.run, ["texture.steps=3"], tracking_uri=None, show_progress=False)  # type: ignore[index]
    assert calls == ["texture", "export"]


@pytest.mark.usefixtures("plain")
def test_the_flow_takes_a_mesh_under_a_root_and_a_prompt(
    store: Path, mesh: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="lies outside"):
        texture.fn(mesh=str(mesh), prompt="a red box", preset="smoke")
    monkeypatch.setenv("DREAMPOLISH_FOLDERS", str(mesh.parent))
    told = texture.fn(mesh=str(mesh), prompt="a red box", preset="smoke")
    assert calls == list(MESH_STAGES)
    assert read_record(store, told["run"]).prompt == "a red box"


@pytest.mark.usefixtures("priors_folder")
def test_the_command_that_makes_it_again_gives_the_same_mesh_and_settings(store: Path, mesh: Path) -> None:
    record = made(store, mesh, strength=0.3, only="paint", uv="keep")
    words = shlex.split(making_command(record, store).line)
    assert words[:3] == ["dreampolish", "texture", "--mesh"]
    settings = [words[number + 1] for number, word in enumerate(words) if word == "--set"]
    again = new_run(
        store=store, prompt=words[-1], preset="smoke", overrides=settings, image=None, given=GivenMesh(Path(words[3]))
    )
    assert (again.mesh, again.prompt, again.config) == (record.mesh, record.prompt, record.config)


@pytest.mark.usefixtures("priors_folder")
def test_strength_sets_what_stays_of_the_given_colours(store: Path, mesh: Path) -> None:
    half, none = made(store, mesh, strength=0.5).config, made(store, mesh, strength=0.0).config
    assert (half.texture.anchors.drift.at(0, 1), half.export.detail_kept) == (60.0, 0.5)
    assert (none.texture.steps, none.export.detail_kept) == (0, 1.0)
    trimesh.creation.box().export(mesh.with_suffix(".stl"))
    plain = made(store, mesh.with_suffix(".stl")).config
    assert plain.texture.block_in_steps > 0 and plain.texture.targets.wanted
    with pytest.raises(ConfigError, match="--strength is 2"):
        made(store, mesh, strength=2.0)


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["texture", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and len(result.stderr.strip().splitlines()) == 1
    return result.stderr


@pytest.mark.usefixtures("priors_folder")
def test_each_mistake_at_the_door_gets_one_line_and_leaves_nothing(store: Path, mesh: Path, tmp_path: Path) -> None:
    (tmp_path / "cloud.ply").write_bytes(trimesh.PointCloud([[0, 0, 0], [1, 0, 0]]).export(file_type="ply"))
    (tmp_path / "cut.glb").write_bytes(mesh.read_bytes()[:300])
    (tmp_path / "word.txt").write_text("no mesh")
    (tmp_path / "lost.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (tmp_path / "wrong.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    wrong = {
        "nothing.glb": "missing",
        "cloud.ply": "only points",
        "cut.glb": "cut off",
        "word.txt": "ends in none of",
        "lost.obj": "gone.mtl, which lost.obj names, is missing",
        "wrong.obj": "names a vertex that is not there",
    }
    for name, words in wrong.items():
        assert words in refused("a red box", "--mesh", str(tmp_path / name)), name
    assert "no material 'gold'; there are paint" in refused("a red box", "--mesh", str(mesh), "--only", "gold")
    assert "export.uv" in refused("a red box", "--mesh", str(mesh), "--uv", "sideways")
    assert "goes with --mesh" in refused("0123abcd", "--strength", "0.4")
    assert "the prompt is empty" in refused("", "--mesh", str(mesh))
    assert not (store / "runs").exists()
