"""What parameters of deployments may name: values, uploads by hash, and files under the roots."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image, ImageDraw
from prefect.runtime import deployment
from typer.testing import CliRunner

from flows.batch import batch
from flows.cli import app
from flows.runs.create import check_priors, new_run
from flows.runs.roots import FOLDERS, deployed, given_picture, located, under_a_root
from flows.text_to_3d import text_to_3d
from flows.training.flow import train_priors
from schemas.config.presets import ConfigError, load_config
from schemas.trainings import PriorsTraining
from stages.runtime.files import PROJECT


@pytest.fixture
def in_a_deployment() -> Iterator[None]:
    """As the worker runs it: Prefect knows of which deployment the flow run is."""
    token = deployment._deployment_id.set(UUID(int=1))
    assert deployed()
    yield
    deployment._deployment_id.reset(token)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "ball.png"
    image = Image.new("RGBA", (64, 64))
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill=(200, 40, 30, 255))
    image.save(path)
    return path


@pytest.mark.parametrize("path", ["/etc/passwd", "outputs/../../x", "store/services/secret", "outputs/prefect.toml", "link"])
def test_what_lies_elsewhere_is_refused_in_one_line(store: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="up --folder") as error:
        under_a_root(tmp_path / path, "image")
    assert "\n" not in str(error.value)


def test_the_roots_are_store_outputs_project_and_the_operators_folders(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    with pytest.raises(ConfigError):
        under_a_root(tmp_path / "pictures" / "a.png", "image")
    monkeypatch.setenv(FOLDERS, os.pathsep.join([str(tmp_path / "pictures"), str(tmp_path / "more")]))
    assert located(Path("a.png"), "image") == tmp_path / "pictures" / "a.png"
    assert located(Path("benchmark/objects"), "objects") == PROJECT / "benchmark/objects"
    for path in (store / "inputs" / "x", tmp_path / "outputs" / "x", PROJECT / "configs", tmp_path / "more" / "x"):
        assert under_a_root(path, "it") == path


@pytest.mark.parametrize(("path", "taken"), [("outputs/x", True), ("store/neus", False), ("stages", False)])
def test_less_can_be_written_than_read(store: Path, tmp_path: Path, path: str, taken: bool) -> None:
    place = PROJECT / path if path == "stages" else tmp_path / path
    if taken:
        assert under_a_root(place, "config.home", writing=True) == place
        return
    with pytest.raises(ConfigError, match="lies outside outputs/, models/ and priors/"):
        under_a_root(place, "config.home", writing=True)


def test_a_picture_is_uploaded_and_taken_by_its_hash(store: Path, picture: Path) -> None:
    told = CliRunner().invoke(app, ["upload", str(picture)])
    digest = told.stdout.strip()
    assert (told.exit_code, len(digest)) == (0, 64)
    assert given_picture(store, digest).read_bytes() == picture.read_bytes()
    with pytest.raises(ConfigError, match="dreampolish upload"):
        given_picture(store, "0" * 64)
    (store / "inputs" / digest).write_bytes(b"other")
    with pytest.raises(ConfigError, match="dreampolish upload"):
        given_picture(store, digest)
    with pytest.raises(ConfigError, match="lies outside"):
        given_picture(store, str(picture))


@pytest.mark.usefixtures("in_a_deployment")
def test_a_deployments_run_reads_no_weights_from_elsewhere(store: Path, tmp_path: Path) -> None:
    check_priors(load_config("smoke", PROJECT / "configs", []))
    with pytest.raises(ConfigError, match=r"priors\.text\.source"):
        new_run(store, "a chair", "smoke", [f"priors.text.source={tmp_path}"], None)
    assert not store.exists()


def test_a_commands_user_may_name_any_folder(store: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(PROJECT / "priors/home/text")
    check_priors(load_config("smoke", PROJECT / "configs", [f"priors.text.source={elsewhere}"]))


@pytest.mark.usefixtures("in_a_deployment", "store")
def test_a_deployments_training_writes_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.training.flow.write_card", lambda *given: pytest.fail("written"))
    for wrong in ({"home": str(tmp_path / "elsewhere")}, {"home": "stages"}, {"renders": "/etc"}, {"split": "/etc/passwd"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            train_priors.fn(parts=[], config=PriorsTraining(**wrong))
    assert not (tmp_path / "elsewhere").exists()


def test_no_parameter_of_a_flow_is_a_path_of_its_own() -> None:
    """A batch takes prompts, not the name of a file with them; a picture is a hash or lies under a root."""
    assert "Path" not in str(batch.fn.__annotations__["prompts"])
    assert "Path" not in str(text_to_3d.fn.__annotations__["image"])


def test_the_folders_of_up_reach_the_runs(store: Path, tmp_path: Path) -> None:
    from flows.service.up import run_environment

    found = run_environment(store, "http://127.0.0.1:1", [tmp_path / "a", tmp_path / "b"])
    assert found[FOLDERS] == f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}"
    missing = CliRunner().invoke(app, ["up", "--folder", str(tmp_path / "none")])
    assert (missing.exit_code, len(missing.stderr.splitlines())) == (2, 2), missing.stderr
