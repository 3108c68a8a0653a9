"""Runs that begin with a user's own mesh: what is refused at the door, which stages run, and how they go on. Without Prefect."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trimesh
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from flows.mesh_to_3d.polish import polish
from flows.mesh_to_3d.texture import texture
from flows.report.settings import making_command
from flows.runs.chain import CHAIN
from flows.runs.create import new_run, stale_stages
from flows.runs.given_mesh import POLISH_BASE_BYTES, POLISH_BYTES, GivenMesh, check_memory, keep_mesh
from flows.text_to_3d import text_to_3d
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError
from schemas.runs import MESH_STAGES, MeshUse, RunRecord
from stages.runtime.command import AnyStage, run_one
from stages.runtime.records import read_record
from stages.runtime.store import LocalStore
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
    assert calls == list(MESH_STAGES["texture"])
    done = read_record(store, record.run)
    assert [entry["name"] for entry in told["stages"]] == list(MESH_STAGES["texture"])
    assert stale_stages(done, store, MESH_STAGES["texture"]) == []
    text_to_3d.fn(prompt="-", run=record.run)
    assert calls == list(MESH_STAGES["texture"])


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
    assert calls == list(MESH_STAGES["texture"])
    assert read_record(store, told["run"]).prompt == "a red box"


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("use", ["polish", "start"])
def test_a_mesh_is_polished_or_starts_a_shape_and_goes_on_from_the_store(
    store: Path, mesh: Path, calls: list[str], use: MeshUse
) -> None:
    record = made(store, mesh, use=use)
    text_to_3d.fn(prompt="-", run=record.run)
    assert calls == list(MESH_STAGES[use])
    done = read_record(store, record.run)
    assert stale_stages(done, store, MESH_STAGES[use]) == []
    for name in MESH_STAGES[use]:
        run_one(CHAIN[name], record.run, [], tracking_uri=None, show_progress=False)
    assert calls == list(MESH_STAGES[use])
    calls.clear()
    texture.fn(run=record.run, overrides=["texture.steps=3"])
    assert calls == ["texture", "export"]


@pytest.mark.usefixtures("plain")
def test_who_reads_a_mesh_that_starts_a_shape(store: Path, mesh: Path, tmp_path: Path) -> None:
    def parents(record: RunRecord, name: StageName) -> set[str]:
        entry = read_record(store, record.run).stages[name]
        artifact = CHAIN[name].artifact_class
        return set(LocalStore(store).open(name, entry.fingerprint, artifact).parents)

    picture = tmp_path / "disc.png"
    disc = Image.new("RGB", (32, 32), "white")
    disc.paste((200, 30, 30), (8, 8, 24, 24))
    disc.save(picture)
    drawn, shown = (
        new_run(store=store, prompt="a red box", preset="smoke", overrides=[], image=image, given=GivenMesh(mesh, use="start"))
        for image in (None, picture)
    )
    for record in (drawn, shown):
        text_to_3d.fn(prompt="-", run=record.run)
        assert parents(record, "neus") == {"reference", "intake"}
        assert parents(record, "export") == {"reference", "texture"}
    assert (parents(drawn, "reference"), parents(shown, "reference")) == ({"intake"}, set())
    polished = made(store, mesh, use="polish")
    text_to_3d.fn(prompt="-", run=polished.run)
    assert parents(polished, "polish") == {"reference", "intake"}
    assert parents(polished, "export") == {"reference", "texture", "intake"}


@pytest.mark.usefixtures("plain")
def test_the_flow_of_polishing_takes_a_mesh_by_its_hash_and_needs_no_prompt(store: Path, mesh: Path, calls: list[str]) -> None:
    digest = keep_mesh(store, mesh, only="").digest
    told = polish.fn(mesh=digest, preset="smoke")
    assert calls == list(MESH_STAGES["polish"])
    config = read_record(store, told["run"]).config
    assert (config.texture.steps, config.export.repaint, config.reference.drawn_over) == (0, False, 0)
    calls.clear()
    told = text_to_3d.fn(prompt="a red box", mesh=digest, preset="smoke")
    assert calls == list(MESH_STAGES["start"])[1:]  # it was taken in already
    with pytest.raises(ConfigError, match="give a prompt too"):
        polish.fn(mesh=digest, image="ab" * 32)


@pytest.mark.usefixtures("priors_folder")
@pytest.mark.parametrize(("use", "words"), [("polish", ["polish", "--mesh"]), ("start", ["run", "--init-mesh"])])
def test_the_command_that_makes_it_again_names_the_use(store: Path, mesh: Path, use: MeshUse, words: list[str]) -> None:
    assert shlex.split(making_command(made(store, mesh, use=use), store).line)[1:3] == words


def test_a_mesh_too_large_for_the_memory_is_refused_with_the_number_that_fits() -> None:
    free = POLISH_BASE_BYTES + 500_000 * POLISH_BYTES
    check_memory("scan.ply", 500_000, free)
    with pytest.raises(ConfigError, match=r"scan.ply has 500,001 triangles; about 500,000 can be polished in the"):
        check_memory("scan.ply", 500_001, free)
    with pytest.raises(ConfigError, match="about 0 can"):
        check_memory("scan.ply", 1, 1000)


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
    assert (none.texture.steps, none.export.repaint) == (0, False)
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
