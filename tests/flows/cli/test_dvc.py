"""DVC's graph is the pipeline's graph, and its command gives the same artifacts as the run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.cli.dvc import CURVED, RUN, read_settings, run_dvc_stage, train_part
from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from flows.training.flow import NEEDS, ORDER, TRAININGS
from flows.training.session import TrainingPlace
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError
from schemas.config.run import PriorsConfig
from schemas.runs import STAGES
from schemas.trainings import PriorsTraining
from stages.runtime.command import run_one
from stages.runtime.context import context_of
from stages.runtime.files import CONFIGS, PROJECT
from stages.runtime.records import read_record, record_path
from stages.runtime.stage import Stage, function_code


def test_both_graphs_are_the_same() -> None:
    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == list(STAGES)
    for name, stage in stages.items():
        parents = [Path(dependency).stem for dependency in stage["deps"] if dependency.startswith("outputs/dvc/")]
        assert tuple(parents) == CHAIN[name].parent_names()
        assert stage["cmd"] == f"python -m flows.cli.dvc stage {name}"
        assert stage["outs"] == [f"outputs/dvc/{name}.json"]
        assert stage["metrics"] == [f"outputs/dvc/metrics/{name}.json"]
        plots = [next(iter(plot)) for plot in stage.get("plots", [])]
        assert plots == ([f"outputs/dvc/curves/{name}.csv"] if name in CURVED else [])


@pytest.mark.parametrize("name", STAGES)
def test_a_dvc_stage_depends_on_what_it_reads(name: StageName) -> None:
    listed = set(yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][name]["deps"])
    shipped = {prior for prior in CHAIN[name].priors if getattr(PriorsConfig(), prior) is not None}
    opened = {*shipped, *(["judge"] if CHAIN[name]._scorer is not None else [])}
    networks = opened & {"text", "view", "normals"}
    priors = {f"priors/home/{prior}" for prior in (*opened, *(["autoencoder"] if networks else []))}
    assert {each for each in listed if each.startswith("priors/")} - {"priors/home/README.md"} == priors
    assert {each for each in listed if each.startswith("configs/")} == {
        f"configs/{path.name}" for path in CONFIGS.glob("*.yaml")
    }
    code = {module.partition(":")[0].replace(".", "/") + ".py" for module in reached(name)}
    assert "flows/cli/dvc.py" in listed and f"stages/{name}.py" in code
    missing = [path for path in code if not any(path == each or path.startswith(f"{each}/") for each in listed)]
    assert missing == []
    assert all((PROJECT / each).exists() for each in listed if not each.startswith("outputs/"))


def reached(name: StageName) -> set[str]:
    """The modules of every definition that a stage's function and its scores' code reach."""
    code = function_code(CHAIN[name]._function, name)
    return {full.rpartition(".")[0] for full in code.names}


def test_the_priors_graph_is_the_registry() -> None:
    assert set(ORDER) == set(NEEDS) == set(TRAININGS)
    assert all(ORDER.index(parent) < ORDER.index(part) for part in ORDER for parent in NEEDS[part])
    stages = yaml.safe_load((PROJECT / "priors" / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["data", *ORDER, "evaluation"]
    home = read_settings(PROJECT / "priors" / "params.yaml").home
    for part in ORDER:
        stage = stages[part]
        parents = [Path(each).name for each in stage["deps"] if each.startswith(f"{home}/")]
        assert tuple(parents) == NEEDS[part]
        assert {"data/renders", "configs/data/split.json"} <= set(stage["deps"])
        assert stage["cmd"] == f"python -m flows.cli.dvc prior {part}"
        assert [next(iter(output)) for output in stage["outs"]] == [f"{home}/{part}"]
    judged = [Path(each).name for each in stages["evaluation"]["deps"] if each.startswith(f"{home}/")]
    assert judged == list(ORDER)


def test_dvc_reads_both_graphs_and_they_do_not_touch() -> None:
    graph = pytest.importorskip("dvc.repo").Repo(str(PROJECT)).index.graph
    found = {(Path(stage.path).parent.name, stage.name) for stage in graph}
    assert {name for folder, name in found if folder == "priors"} == {"data", *ORDER, "evaluation"}
    assert {name for folder, name in found if folder != "priors"} == set(STAGES)
    assert all(later.path == earlier.path for later, earlier in graph.edges)


def test_a_training_called_by_dvc_leaves_figures_and_its_own_checkpoints(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, PriorsTraining]] = []

    def training(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
        assert (tmp_path / config.home / "judge" / "trunk.safetensors").read_bytes() == b"trunk"
        seen.append((place.work, config))
        return {"r_precision": 0.25}

    monkeypatch.setitem(TRAININGS, "judge", training)
    monkeypatch.setattr("flows.cli.dvc.PROJECT", tmp_path)
    (tmp_path / "priors" / "home" / "judge").mkdir(parents=True)
    (tmp_path / "priors" / "home" / "judge" / "trunk.safetensors").write_bytes(b"trunk")
    params = tmp_path / "training.yaml"
    for content in ("home: made", "home: made", "home: made\njudge: {steps: 7}"):
        params.write_text(content)
        assert json.loads(train_part("judge", params).read_text()) == {"r_precision": 0.25}
    assert seen[2][1].judge.steps == 7
    assert seen[0][0] == seen[1][0] != seen[2][0]
    assert seen[0][0].parent == store / "priors"
    params.write_text("hom: made")
    with pytest.raises(ConfigError, match="hom: Extra inputs are not permitted"):
        train_part("judge", params)


@pytest.mark.usefixtures("priors_folder", "tracker")
def test_dvc_and_a_run_meet_in_the_store(store: Path, tmp_path: Path, stand_ins: dict, calls: list[str]) -> None:
    Path("params.yaml").write_text("prompt: a red armchair\npreset: smoke\noverrides: []\n")
    record = new_run(store, "a red armchair", "smoke", [], None)
    by_run = run_one(CHAIN["reference"], record.run, [], tracking_uri=None, show_progress=False)
    by_dvc = json.loads(run_dvc_stage("reference", Path("params.yaml")).read_text())
    assert calls == ["reference"]
    figures = read_record(store, RUN).stages["reference"].metrics
    assert json.loads(Path("outputs/dvc/metrics/reference.json").read_text()) == figures
    assert by_dvc["fingerprint"] == by_run.fingerprint
    assert by_dvc["image"]["sha256"] == by_run.image.sha256  # type: ignore[attr-defined]
    nerf = stand_ins["nerf"]

    def with_a_curve(stage: Stage, **given: object) -> Artifact:
        stage.log(0, {"psnr": 19.0})
        return nerf(stage, **given)

    stand_ins["nerf"] = with_a_curve
    run_dvc_stage("nerf", Path("params.yaml"))
    assert calls == ["reference", "nerf"]
    assert json.loads(Path("outputs/dvc/metrics/nerf.json").read_text()) == {"psnr": 20.0}
    assert Path("outputs/dvc/curves/nerf.csv").read_text() == "step,psnr\n0,19.0\n1,20.0\n"
    (store / "journals" / RUN).rename(tmp_path / "gone")
    run_dvc_stage("nerf", Path("params.yaml"))
    assert Path("outputs/dvc/curves/nerf.csv").read_text() == "step,psnr\n", "its journal is gone"


@pytest.mark.slow
@pytest.mark.parametrize("with_git", [True, False])
def test_dvc_itself_repeats_compares_and_does_without_git(tmp_path: Path, with_git: bool) -> None:
    """The project's own graph, each stage's command exchanged for one that writes what the stage would."""
    pytest.importorskip("dvc")
    command = [sys.executable, "-m", "dvc"]

    def dvc(*arguments: str) -> str:
        ended = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    _write_small_graph(tmp_path)
    if with_git:
        for arguments in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
        ):
            subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    else:
        dvc("config", "--local", "core.no_scm", "true")
        dvc("repro", "-q")
        assert json.loads((tmp_path / "outputs/dvc/metrics/export.json").read_text())["psnr"] == 5.0
        assert "export.json" in dvc("metrics", "show")
        return
    dvc("repro", "-q")
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "made"], cwd=tmp_path, check=True)
    dvc("exp", "run", "-q", "-S", "prompt=a long wooden table")
    shown = json.loads(dvc("exp", "show", "--json"))
    assert "psnr" in json.dumps(shown)
    changed = json.loads(dvc("metrics", "diff", "--json"))["outputs/dvc/metrics/export.json"]["psnr"]
    assert (changed["old"], changed["new"]) == (5.0, 19.0)
    assert "outputs/dvc/curves/nerf.csv" in dvc("plots", "diff", "--json")


def _write_small_graph(folder: Path) -> None:
    """dvc.yaml with its dependencies on the project's files left out, and commands that need nothing."""
    graph = yaml.safe_load((PROJECT / "dvc.yaml").read_text())
    for name, stage in graph["stages"].items():
        stage["deps"] = ["fake.py", *(each for each in stage["deps"] if each.startswith("outputs/"))]
        stage["cmd"] = f"{sys.executable} fake.py {name} {int(name in CURVED)}"
    (folder / "dvc.yaml").write_text(yaml.safe_dump(graph))
    (folder / "params.yaml").write_text("prompt: a box\npreset: smoke\noverrides: []\n")
    (folder / "fake.py").write_text(
        "import json, pathlib, sys\n"
        "name, curved = sys.argv[1:]\n"
        "length = len(pathlib.Path('params.yaml').read_text().splitlines()[0].removeprefix('prompt: ')) * 1.0\n"
        "for path, text in ((f'{name}.json', json.dumps([name, length])), (f'metrics/{name}.json', json.dumps({'psnr': length})),\n"
        "                   *([(f'curves/{name}.csv', f'step,psnr\\n1,{length}\\n')] if curved == '1' else [])):\n"
        "    path = pathlib.Path('outputs/dvc', path)\n"
        "    path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    path.write_text(text)\n"
    )
    (folder / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore"):
        shutil.copyfile(PROJECT / name, folder / name)


def test_wrong_params_are_one_line(store: Path) -> None:
    Path("params.yaml").write_text("prompt: a chair\npreset: smoke\noverides: []\n")
    with pytest.raises(ConfigError, match=r"params\.yaml"):
        run_dvc_stage("reference", Path("params.yaml"))


@pytest.mark.usefixtures("tracker")
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("prompt: a red\npreset: smoke\noverrides: []\n", "'a red' names no object"),
        ("prompt: a chair\npreset: smoke\noverrides: [priors.text.source=nowhere]\n", "nowhere"),
    ],
)
def test_what_a_run_refuses_leaves_no_asset(store: Path, stand_ins: dict, calls: list[str], lines: str, said: str) -> None:
    Path("params.yaml").write_text(lines)
    with pytest.raises(ConfigError, match=said):
        run_dvc_stage("reference", Path("params.yaml"))
    assert calls == []
    assert not record_path(store, RUN).exists()


@pytest.mark.slow
@pytest.mark.xdist_group("prefect")
@pytest.mark.usefixtures("prefect_server")
def test_one_stage_four_ways_gives_one_result(tmp_path: Path, empty_tracker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real first stage, each way in a store of its own, so that all of them compute."""
    from stages.reference import make_reference

    prompt, overrides = "a wooden table", ["device=cpu"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump({"prompt": prompt, "preset": "smoke", "overrides": overrides}))
    told = {}
    for way in ("call", "task", "command", "dvc"):
        store = tmp_path / way
        store.mkdir()
        shutil.copyfile(empty_tracker, store / "mlflow.db")
        monkeypatch.setenv("DREAMPOLISH_STORE", str(store))
        record = new_run(store, prompt, "smoke", overrides, None)
        context = context_of(record, store, None, show_progress=False)
        arguments = (prompt, None, record.config.reference)
        if way == "call":
            make_reference.compute(context, *arguments)
        elif way == "task":
            make_reference(context, *arguments)
        elif way == "command":
            answer = CliRunner().invoke(app, ["stage", "reference", "--run", record.run])
            assert answer.exit_code == 0, answer.output
        else:
            run_dvc_stage("reference", Path("params.yaml"))
        (path,) = (store / "reference").glob("*/artifact.json")
        content = json.loads(path.read_text())
        told[way] = {key: value for key, value in content.items() if key not in ("seconds", "peak_memory")}
        assert path.parent.name == content["fingerprint"]
        assert content["image"]["sha256"] and content["normals"]["sha256"]
    assert told["task"] == told["call"]
    assert told["command"] == told["call"]
    assert told["dvc"] == told["call"]
