"""The command line: one line and an exit code for every mistake, JSON on demand."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import COMMANDS, app, main
from flows.runs.create import new_run, slug_from_prompt
from stages.runtime.files import free_space
from tests.support.damage import overwrite

PROJECT = Path(__file__).parents[3]
runner = CliRunner()


def invoke(*arguments: str) -> Result:
    return runner.invoke(app, list(arguments))


def assert_one_line(result: Result, *words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that holds every word."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.usefixtures("priors_folder")
@pytest.mark.parametrize(
    ("prompt", "word"),
    [("", "empty"), ("   ", "empty"), ("x" * 10_000, "limit is 300"), ("\x00\x07", "readable"), ("!!!", "readable")],
)
def test_bad_prompts_are_refused(store: Path, prompt: str, word: str) -> None:
    assert_one_line(invoke("run", prompt), word)
    assert not (store / "runs").exists()


@pytest.mark.usefixtures("priors_folder", "store")
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("texture.lamda_stable=0.5", ["unknown setting texture.lamda_stable", "did you mean texture.lambda_stable?"]),
        ("seed=minus one", ["seed", "must be a whole number"]),
        ("nerf.steps=-1", ["nerf.steps", "greater than or equal to 0"]),
        ("nonsense", ["section.key=value"]),
    ],
)
def test_bad_settings_are_refused(setting: str, words: list[str]) -> None:
    assert_one_line(invoke("run", "a chair", "--set", setting), *words)


@pytest.mark.usefixtures("store")
def test_a_missing_priors_folder_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    result = invoke("run", "a chair", *(f for name in ("text", "view") for f in ("--set", f"priors.{name}.source={missing}")))
    assert_one_line(result, f"no text prior at {missing}", "priors.text.source=... names another")


@pytest.mark.usefixtures("store")
def test_a_missing_embedded_prior_is_brought_back_by_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.runs.create.project_file", lambda name: tmp_path / name)
    assert_one_line(invoke("run", "a chair"), "git checkout priors/home/text")


@pytest.mark.usefixtures("priors_folder", "store")
def test_bad_pictures_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert_one_line(invoke("run", "a chair", "--image", str(text)), "text.png", "PNG")
    assert_one_line(invoke("run", "a chair", "--image", str(tmp_path / "absent.png")), "absent.png")
    large = tmp_path / "large.png"
    Image.fromarray(np.zeros((1, 5000), np.uint8)).save(large)
    assert_one_line(invoke("run", "a chair", "--image", str(large)), "4096")
    assert_one_line(invoke("run", "a chair", "--image", str(tmp_path)), str(tmp_path), "is no file")


@pytest.mark.usefixtures("priors_folder")
@pytest.mark.parametrize(
    ("kind", "word"), [("striped", "background is not plain"), ("blank", "no object stands out"), ("full", "covers 100%")]
)
def test_pictures_without_an_object_are_refused_before_a_run_exists(store: Path, tmp_path: Path, kind: str, word: str) -> None:
    picture = np.full((64, 64, 4), 255, np.uint8)
    if kind == "striped":
        picture[:, ::2, :3] = 0
    if kind == "full":
        picture[0, 0, 3] = 0
    Image.fromarray(picture).save(tmp_path / "picture.png")
    assert_one_line(invoke("run", "a chair", "--image", str(tmp_path / "picture.png")), word, "background")
    assert not (store / "runs").exists()
    assert not (store / "inputs").exists()


@pytest.mark.usefixtures("priors_folder")
@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("qwertz blorf", "never seen any of: qwertz, blorf"),
        ("a yellow submarine", "never seen any of: submarine"),
        ("a small wooden gun", "never seen any of: gun"),
        ("red", "names no object"),
        ("the straight view", "names no object"),
        ("reds", "names no object"),
        ("the dragon's egg", "never seen any of: dragon, egg"),
        ("a sleeping dragon", "never seen any of: dragon"),
        ("a hot concrete dragon on a snowy day", "never seen any of: dragon"),
    ],
)
def test_prompts_that_name_nothing_known_are_refused_before_a_run_exists(store: Path, prompt: str, word: str) -> None:
    assert_one_line(invoke("run", prompt), word)
    assert not (store / "runs").exists()


@pytest.mark.usefixtures("store")
def test_unknown_runs_presets_and_stages_are_named() -> None:
    assert_one_line(invoke("report", "feedbeef"), "feedbeef", "known: none")
    assert_one_line(invoke("resume", "../../etc/passwd"), "no single run")
    refused = invoke("run", "a chair", "--preset", "smoky")
    assert_one_line(refused, "did you mean smoke?")
    assert "there are" not in refused.stderr, "one remedy is enough"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "a", "red", "armchair"], ['quote the prompt: dreampolish run "a red armchair"']),
        (["run"], ["Missing argument", "dreampolish run --help"]),
        (["run", "a chair", "--sed", "3"], ["--sed", "dreampolish run --help"]),
        (["runn", "a chair"], ["runn", "dreampolish --help"]),
        (["--nothing"], ["--nothing", "dreampolish --help"]),
        (["priors", "trian"], ["trian", "dreampolish priors --help"]),
    ],
)
def test_a_wrong_command_line_costs_one_line(arguments: list[str], words: list[str]) -> None:
    assert_one_line(invoke(*arguments), *words)
    assert_one_line(invoke("stage", "nurf", "--run", "feedbeef"), "no stage 'nurf'")


@pytest.mark.usefixtures("priors_folder")
def test_a_full_disk_is_one_line_and_leaves_the_store_whole(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, payload: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("stages.runtime.records.write_atomically", full)
    assert_one_line(invoke("run", "a chair"), "No space left on device", str(store), f"{free_space(store)} free")
    assert list((store / "runs").iterdir()) == []


@pytest.mark.usefixtures("priors_folder", "stand_ins", "tracker")
def test_stage_computes_one_stage_and_report_tells_it(store: Path, calls: list[str]) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    first = invoke("stage", "reference", "--run", record.run[:6], "--json")
    assert first.exit_code == 0, first.stderr
    told = json.loads(first.stdout.splitlines()[-1])
    assert told["run"] == record.run
    assert set(told["stages"][0]) == {"name", "state", "seconds", "fingerprint", "metrics"}
    assert invoke("stage", "nerf", "--run", record.run, "--set", "nerf.steps=3").exit_code == 0
    assert_one_line(invoke("stage", "dmtet", "--run", record.run), "has no neus yet", f"dreampolish resume {record.run}")
    assert calls == ["reference", "nerf"]
    report = json.loads(invoke("report", record.run, "--json").stdout.splitlines()[-1])
    assert [entry["name"] for entry in report["stages"]] == ["reference", "nerf"]


@pytest.mark.usefixtures("priors_folder", "stand_ins", "tracker")
def test_a_damaged_parent_is_not_used(store: Path) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    assert invoke("stage", "reference", "--run", record.run).exit_code == 0
    payload = next((store / "reference").glob("*/payload.bin"))
    content = bytearray(payload.read_bytes())
    content[5] ^= 1
    overwrite(payload, bytes(content))
    assert_one_line(invoke("stage", "nerf", "--run", record.run), "payload.bin differs", "resume")
    assert any("payload.bin differs" in line for line in invoke("doctor").stdout.splitlines())


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
@pytest.mark.usefixtures("priors_folder", "stand_ins", "tracker", "prefect_server")
def test_run_texture_and_resume_end_with_json(store: Path, calls: list[str]) -> None:
    first = json.loads(invoke("run", "a chair", "--preset", "smoke", "--json").stdout.splitlines()[-1])
    assert (Path(first["output"]) / "asset.glb").is_file()
    painted = json.loads(invoke("texture", first["run"], "--set", "texture.steps=3", "--json").stdout.splitlines()[-1])
    assert [entry["state"] for entry in painted["stages"] if entry["name"] in ("texture", "export")] == ["computed", "computed"]
    calls.clear()
    shutil.rmtree(store / "polish")
    resumed = invoke("resume", first["run"], "--json")
    assert calls == ["polish"]
    assert json.loads(resumed.stdout.splitlines()[-1])["run"] == first["run"]


def test_slugs_are_plain_names() -> None:
    assert slug_from_prompt("A red  Armchair!") == "a-red-armchair"
    assert slug_from_prompt("../../etc/passwd") == "etc-passwd"
    assert slug_from_prompt("Stühle für Käthe") == "stuhle-fur-kathe"
    assert slug_from_prompt("椅子") == "asset"
    assert len(slug_from_prompt("chair " * 40)) <= 40


HEAVY = ("torch", "prefect", "mlflow", "diffusers", "transformers")


@pytest.mark.parametrize("arguments", [["--help"], ["priors", "--help"], ["rnu"], ["priors", "trian"]])
def test_help_and_typing_errors_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom flows.cli import app\n"
        f"try: app({arguments})\nexcept SystemExit: pass\n"
        f"sys.exit(', '.join(set({HEAVY}) & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("No such command")) == (0, arguments[-1] != "--help")


def test_help_lists_every_command_with_the_beginning_of_what_it_says_itself() -> None:
    for module, commands in COMMANDS.items():
        listed = invoke(*([module] if module in ("priors", "store") else []), "--help").stdout
        for name, line in commands.items():
            assert f"\n  {name} " in listed
            own = getattr(import_module(f"flows.cli.{module}"), name).__doc__
            assert own.startswith(line.rstrip(".")), name


def test_the_environment_is_set_before_a_commands_module_is_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os\nraise RuntimeError('quiet: ' + os.environ.get('PREFECT_HOME', 'no'))")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    store = tmp_path / "store"
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "a chair"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**bare, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}", "DREAMPOLISH_STORE": str(store)},
    )  # fmt: skip
    assert ended.returncode == 1
    line = f"internal error, RuntimeError: quiet: {store / 'prefect'}; details in {store / 'last-error.log'}"
    assert ended.stderr.strip() == line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_a_commands_module_is_imported_is_one_line(tmp_path: Path, number: int) -> None:
    (tmp_path / "torch.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nimport time\ntime.sleep(5)")
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}", "DREAMPOLISH_STORE": str(tmp_path / "store")},
        # A shell's background jobs ignore SIGINT, and so would this one's child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (130, "stopped; go on with: the same command\n")


def test_the_installed_command_is_there() -> None:
    script = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]["dreampolish"]
    module, _, name = script.partition(":")
    assert getattr(import_module(module), name) is main
