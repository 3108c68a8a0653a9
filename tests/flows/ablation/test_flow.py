"""Studies: plans refused in one line, and the flow over stand-in stages."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import trimesh
import yaml
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from dreampolish.assets.reading.read import read_mesh, read_scene
from dreampolish.assets.reading.source import open_archive, open_mesh_file
from dreampolish.assets.reading.surface import welded
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.renderers.mesh import mesh_from_parts
from dreampolish.scene.cutout import OBJECT_RADIUS
from dreampolish.scene.pictures import read_picture
from flows.ablation import flow as ablation_flow
from flows.ablation import plan as ablation_plan
from flows.ablation.cell import Workplace, cell_record
from flows.ablation.flow import ablation
from flows.ablation.plan import STUDIES, Cell, found_study, planned
from flows.ablation.roughened import in_true_frame, polishing_settings, rough_glb
from flows.benchmark.truth import SHOWN, picture_camera, true_mesh
from flows.cli import app
from schemas.artifacts import IntakeArtifact, Placement
from schemas.config.presets import ConfigError, load_config
from schemas.config.run import Config
from schemas.config.shared.schedule import constant
from stages.results.files import StoredFiles
from stages.results.surfaces import opened_from_textured
from stages.runtime.errors import StageError
from stages.runtime.files import CONFIGS, PROJECT
from stages.runtime.keys.code import Code
from stages.runtime.records import newest_records, read_record
from stages.runtime.shared.stores import store_at
from stages.runtime.signals import StoppedError, stop_on_signals
from stages.runtime.tracking.journal import EXPERIMENT


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and code are not hashed: the one is slow, the other may change while somebody edits it."""
    monkeypatch.setattr(ablation_plan, "prior_digests", lambda run, *names: list(names))
    monkeypatch.setattr(ablation_plan, "code_of_module", lambda module, root: Code(module, frozenset(), frozenset()))


def study_file(folder: Path, **changes: object) -> Path:
    content = {
        "name": "trial",
        "question": "Which?",
        "preset": "smoke",
        "prompts": ["a wooden table"],
        "seeds": [0, 1],
        "variants": {"dsd": {}, "csd": {"settings": {"texture.objective": "csd"}}},
        **changes,
    }
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_can_begin(path: Path, store: Path) -> None:
    plan = planned(found_study(Path(path.stem)), store, None, ["threads=1"])
    assert plan.study.name == path.stem
    assert len({each.run for each in plan.cells}) == len(plan.cells) > 1
    assert all(each.config is None or each.config.threads == 1 for each in plan.cells)
    assert plan.stage_computations() < sum(len(each.stages) for each in plan.cells) or path.stem in (
        "generalisation",
        "pictures",
    )
    assert not store.exists()


@pytest.mark.usefixtures("no_weights")
def test_shares_keep_the_number_of_steps(store: Path) -> None:
    plan = planned(found_study(Path("representation")), store, None, [])
    totals = {
        name: [getattr(config, stage).steps for stage in ("nerf", "neus", "dmtet", "polish")]
        for name, config in plan.configs.items()
    }
    assert len({sum(steps) for steps in totals.values()}) == 1
    assert totals["nerf"][1:] == [0, 0, 0]
    assert totals["neus dmtet"][0] == 0
    assert plan.until("nerf in equal time") == "nerf"


@pytest.mark.usefixtures("no_weights")
def test_on_true_meshes_there_is_no_geometry_to_make(store: Path) -> None:
    plan = planned(found_study(Path("textures")), store, None, [])
    assert {each.stages for each in plan.cells} == {("intake", "reference", "texture")}
    # Each object's mesh and reference once, and a texture for each variant.
    assert plan.stage_computations() == 10 * (2 + 6)
    assert {config.texture.block_in_steps for config in plan.configs.values()} == {400}, "as for any mesh without colours"
    assert {config.texture.steps for config in plan.configs.values()} == {80}, "the study's own settings lie over those"


@pytest.mark.usefixtures("no_weights")
def test_a_study_of_polishing_takes_the_settings_of_polish_mesh(store: Path) -> None:
    plan = planned(found_study(Path("roughened")), store, None, [])
    assert {each.stages for each in plan.cells} == {("intake", "reference", "polish")}
    assert len({each.subject.name for each in plan.cells}) == 20, "ten objects, each at two amplitudes"
    polished = load_config("home", CONFIGS, polishing_settings()).polish
    assert plan.configs["polish --mesh"].polish == polished
    assert polished.normal_weight.largest == 0
    assert plan.configs["with the prior"].polish == polished.model_copy(update={"normal_weight": constant(10.0)})


@pytest.mark.usefixtures("no_weights")
def test_a_roughened_cell_gives_a_rough_mesh_whose_places_are_measured_where_the_truth_lies(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(found_study(study_file(tmp_path, **ROUGH)), store, None, [])
    cell = plan.cells[0]
    assert (cell.subject.name, cell.config is not None) == ("barrel 2 %", True)
    assert cell.config is not None and cell.subject.truth is not None
    record = cell_record(cast(Workplace, SimpleNamespace(store=store)), cell, cell.config)
    assert (record.mesh_use, record.image, record.chain[:3]) == ("polish", None, ("intake", "reference", "polish"))
    glb = tmp_path / "rough.glb"
    glb.write_bytes(rough_glb(cell.subject.truth.glb, 0.02, 0))
    assert record.mesh is not None
    kept = read_scene(open_archive(store / "inputs" / record.mesh))
    assert np.array_equal(kept.parts[0].positions, read_scene(open_mesh_file(glb)).parts[0].positions)
    rough, true = read_mesh(glb), read_mesh(cell.subject.truth.glb)
    assert rough.radius != pytest.approx(true.radius, rel=1e-3), "bumps change the frame"
    at = {"up": "y", "front_deg": 0, "center": tuple(rough.center), "scale": rough.radius / OBJECT_RADIUS, "metres_per_unit": 1}
    placement = Placement.model_validate(at)
    intake = cast(Any, IntakeArtifact).model_construct(placement=placement)
    monkeypatch.setattr(
        "flows.ablation.roughened.load_mesh",
        lambda files, artifact: mesh_from_parts(*welded(rough.normalized(OBJECT_RADIUS))),
    )
    found, _ = in_true_frame(intake, intake, cell.subject.truth.glb, cast(StoredFiles, None)).mesh()
    expected = np.unique((rough.vertices - true.center) / true.radius * OBJECT_RADIUS, axis=0)
    apart, _ = cKDTree(expected).query(found.double().numpy())
    assert (len(found), float(apart.max()) < 1e-5) == (len(expected), True)
    off = np.linalg.norm(np.ptp(expected, axis=0)) / np.linalg.norm(
        np.ptp(true.normalized(OBJECT_RADIUS).vertices.numpy(), axis=0)
    )
    assert 1 < off < 1.2


ROUGH = {
    "prompts": [],
    "objects": ["barrel"],
    "on_true_meshes": True,
    "roughened": [0.02],
    "until": "polish",
    "seeds": [0],
    "variants": {"none": {"settings": {"polish.steps": 0}}, "polished": {}},
}


@pytest.mark.usefixtures("no_weights")
def test_variants_may_differ_in_their_pictures_alone(store: Path, tmp_path: Path) -> None:
    plan = planned(found_study(Path("pictures")), store, None, [])
    assert {each.variant: each.pictures for each in plan.cells} == {"one": (), "two": (180,), "four": (90, 180, -90)}
    assert len({str(config) for config in plan.configs.values()}) == 1
    twins = {"a": {"pictures": [90]}, "b": {"pictures": [90]}}
    study = found_study(study_file(tmp_path, objects=["barrel"], prompts=[], variants=twins))
    with pytest.raises(ConfigError, match="have the same settings"):
        planned(study, store, None, [])


@pytest.mark.usefixtures("no_weights")
def test_a_cells_pictures_are_the_true_objects_from_their_azimuths(store: Path, tmp_path: Path) -> None:
    plan = planned(found_study(study_file(tmp_path, objects=["barrel"], prompts=[], variants=TURNED)), store, None, [])
    cell = next(each for each in plan.cells if each.variant == "two")
    assert cell.config is not None
    work = cast(Workplace, SimpleNamespace(store=store))
    record = cell_record(work, cell, cell.config)
    assert [(each.azimuth_deg, each.elevation_deg) for each in record.others] == [(90, 10)]
    truth = cell.subject.truth
    assert truth is not None
    seen = opened_from_textured(true_mesh(truth.glb, torch.device("cpu"))).render(picture_camera(90.0, 10.0, 512))
    shown = read_picture(store / "inputs" / record.others[0].image)
    torch.testing.assert_close(shown[..., 3], seen.alpha[0], atol=1 / 255, rtol=0)
    assert cell_record(work, cell, cell.config) == record


TURNED = {"one": {}, "two": {"pictures": [90]}}


def test_every_roughened_subject_is_shown_beside_its_truth(store: Path) -> None:
    plan = planned(found_study(Path("roughened")), store, None, [])
    views = torch.rand(max(SHOWN) + 1, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    truths = {"barrel": SimpleNamespace(views=SimpleNamespace(rgb=views))}
    found = ablation_flow._true_pictures(cast(Workplace, SimpleNamespace(plan=plan, truths=truths)))
    assert sorted(found) == ["barrel 0.5 %", "barrel 1 %"]
    assert all(torch.equal(each, views[list(SHOWN)]) for each in found.values())


@pytest.mark.usefixtures("no_weights")
def test_processes_of_one_study_take_turns_at_a_cell(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines that share a store begin at different cells."""
    plan = planned(found_study(study_file(tmp_path)), store, None, [])
    done = list[str]()

    def another(cell: Cell) -> None:
        with store_at(store).lock("run", cell.run, lambda: True):
            pass

    def held(work: Workplace, cell: Cell, config: Config) -> None:
        with ThreadPoolExecutor(1) as pool, pytest.raises(StoppedError):
            pool.submit(another, cell).result()
        done.append(cell.run)
        raise StageError("this is all", None, "nothing more is asked")

    monkeypatch.setattr(ablation_flow, "run_cell", held)
    monkeypatch.setattr(ablation_flow, "described", lambda *_, **__: None)
    work = cast(Workplace, SimpleNamespace(plan=plan, store=store))
    with stop_on_signals() as stop:
        ablation_flow._run_all(work, ablation_flow.Progress(), stop)
        first = done.copy()
        monkeypatch.setattr(ablation_flow, "shared_url", lambda: "s3://bucket/store")
        monkeypatch.setattr(ablation_flow.secrets, "randbelow", lambda n: n - 1)
        ablation_flow._run_all(work, ablation_flow.Progress(), stop)
    assert first == [cell.run for cell in plan.cells]
    assert done[len(first) :] == [first[-1], *first[:-1]]


@pytest.mark.usefixtures("no_weights")
def test_an_id_stands_for_the_settings(store: Path, tmp_path: Path) -> None:
    def plan_id(**changes: object) -> str:
        return planned(found_study(study_file(tmp_path, **changes)), store, None, []).id

    assert plan_id() == plan_id(question="And which?") != plan_id(seeds=[0])
    assert plan_id() != plan_id(settings={"texture.steps": 3})


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": {"texture.lamda_stable": 1}}, "did you mean texture.lambda_stable"),
        ({"variants": {"a": {}, "b": {"settings": {"texture.size": "big"}}}}, "b: texture.size = 'big'"),
        ({"variants": {"a": {}, "b": {}}}, "variants 'a' and 'b' have the same settings"),
        ({"settings": {"seed": 1}}, "seed is the study's own"),
        ({"until": "reference"}, "it has no shape to look at"),
        ({"objects": ["unicorn"]}, "no object 'unicorn'"),
        ({"prompts": ["a xyzzy"]}, "has never seen any of: xyzzy"),
        ({"prompts": ["a red armchair", "a red"]}, "'a red' names no object"),
        ({"preset": "hom"}, "did you mean home"),
        ({"on_true_meshes": True}, "only objects have a true mesh"),
        ({"variants": {"a": {}, "b": {"pictures": [90]}}}, "rendered from true meshes"),
        ({"objects": ["barrel"], "prompts": [], "variants": {"a": {}, "b": {"pictures": [0]}}}, "0.0 stands there twice"),
        ({"objects": ["barrel"], "prompts": [], "variants": {"a": {}, "b": {"pictures": [300]}}}, "less than or equal to 180"),
        ({"on_true_meshes": True, "prompts": [], "objects": ["barrel"], "until": "polish"}, "until texture"),
        ({"roughened": [0.01]}, "only true meshes can be"),
        ({"on_true_meshes": True, "prompts": [], "objects": ["barrel"], "roughened": [0.01]}, "roughened: until polish"),
        ({"roughened": [0.01, 0.01]}, "0.01 stands there twice"),
        ({"prompts": {"seen": ["a table"], "new": ["a chair"]}, "unseen_group": "new"}, "but the text prior has seen 'chair'"),
    ],
)
def test_a_bad_study_is_one_line_and_exit_code_2(store: Path, tmp_path: Path, changes: dict[str, object], told: str) -> None:
    result = CliRunner().invoke(app, ["ablate", str(study_file(tmp_path, **changes))])
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not store.exists()


@pytest.fixture
def small_balls(stand_ins: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in artifacts hold no shape: every one opens as the same ball."""
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    vertices, faces = torch.tensor(sphere.vertices).float(), torch.tensor(sphere.faces)
    parts = (torch.zeros(len(vertices), 2), faces, (torch.full((2, 2, 3), 0.5),), torch.zeros(len(faces), dtype=torch.int64))
    ball = opened_from_textured(TexturedMesh(vertices, vertices * 2, *parts))
    monkeypatch.setattr("flows.ablation.cell.open_artifact", lambda artifact, config, files: ball)
    for module in ("flows.ablation.figures", "flows.benchmark.truth"):
        monkeypatch.setattr(f"{module}.SIZE", 24)


def failing_for(objective: str, plain: Callable[..., object]) -> Callable[..., object]:
    def texture(stage: object, **given: object) -> object:
        if given["config"].objective == objective:
            raise StageError(f"{objective} went wrong", 3, "look")
        return plain(stage, **given)

    return texture


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
@pytest.mark.usefixtures("prefect_server", "no_weights", "small_balls")
def test_a_study_shares_geometry_isolates_failures_and_goes_on(
    store: Path, tracker: str, tmp_path: Path, calls: list[str], stand_ins: dict
) -> None:
    path, whole = study_file(tmp_path), stand_ins["texture"]
    stand_ins["texture"] = failing_for("csd", whole)
    broken = ablation(study=found_study(path))
    assert [failure["cell"] for failure in broken["failures"]] == [
        "csd | a-wooden-table | seed 0",
        "csd | a-wooden-table | seed 1",
    ]
    assert "csd went wrong" in (Path(broken["output"]) / "table.md").read_text()
    stand_ins["texture"] = whole
    mended = ablation(study=found_study(path))
    # Two seeds: five stages of geometry each once, and a texture for each of four cells.
    geometry = ["reference", "nerf", "neus", "dmtet", "polish"]
    assert sorted(calls) == sorted([*geometry * 2, *["texture"] * 4])
    assert (mended["output"], mended["failures"]) == (broken["output"], [])
    assert mended["stages"] == {"computed": 2, "resumed": 0, "cached": 22}
    again = ablation(study=found_study(path))
    assert again["stages"] == {"computed": 0, "resumed": 0, "cached": 24}
    assert again["means"] == mended["means"]
    assert len(calls) == 14
    folder = Path(again["output"])
    assert folder.parent == tmp_path / "outputs" / "ablations"
    assert sorted(each.name for each in folder.iterdir()) == ["plot.png", "sheet.png", "study.json", "table.md"]
    told = json.loads((folder / "study.json").read_text())
    assert [each["settings"] for each in told["cells"]] == [[], ["texture.objective=csd"]] * 2
    _check_tracker(tracker, store)


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
@pytest.mark.usefixtures("prefect_server", "no_weights", "small_balls", "tracker")
def test_a_study_on_true_meshes_paints_the_bare_mesh(store: Path, tmp_path: Path, calls: list[str]) -> None:
    objects = str(PROJECT / "benchmark" / "objects")
    subject = {"prompts": [], "objects": ["barrel"], "objects_folder": objects, "on_true_meshes": True, "seeds": [0]}
    done = ablation(study=found_study(study_file(tmp_path, **subject)))
    assert (done["failures"], sorted(calls)) == ([], ["intake", "reference", "texture", "texture"])
    records = [read_record(store, path.stem) for path in newest_records(store)]
    (digest,) = {record.mesh for record in records}
    assert digest is not None
    given = read_scene(open_archive(store / "inputs" / digest))
    true = read_scene(open_mesh_file(PROJECT / "benchmark" / "objects" / "barrel" / "mesh.glb"))
    assert all(part.uv is None and part.colors is None and part.look.texture is None for part in given.parts)
    for bare, part in zip(given.parts, true.parts, strict=True):
        assert np.array_equal(bare.faces, part.faces) and np.allclose(bare.positions, part.positions, atol=1e-6)


def _check_tracker(uri: str, store: Path) -> None:
    """One parent, a child a cell under it with tags and figures, stages under the cells, files on the parent's page."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    parent = parents[0]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted((run.data.tags["variant"], run.data.tags["seed"]) for run in children) == [
        ("csd", "0"), ("csd", "1"), ("dsd", "0"), ("dsd", "1"),
    ]  # fmt: skip
    for run in children:
        assert run.info.status == "FINISHED"
        assert (run.data.tags["ablation"], run.data.tags["prompt"]) == ("trial", "a wooden table")
        assert run.data.metrics["final/texture/psnr"] == run.data.metrics["best/texture/psnr"] == 20.0
        assert run.data.metrics["final/reference_psnr"] == 20.0
        assert run.data.metrics["final/saturation"] == pytest.approx(0, abs=1e-6)
        assert run.data.params["texture.objective"] == run.data.tags["variant"]
        assert any(other.data.tags.get("mlflow.parentRunId") == run.info.run_id for other in runs)
    assert parent.data.metrics["mean/alignment/csd"] == pytest.approx(children[0].data.metrics["final/alignment"])
    assert parent.data.metrics["failures"] == 0
    files = {path.name for path in (store / "mlartifacts" / parent.info.run_id / "artifacts").iterdir()}
    assert files == {"plot.png", "sheet.png", "study.json", "table.md"}
