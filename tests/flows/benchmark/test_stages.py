"""What a benchmark remembers, and everything that makes it measure anew."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.benchmark.assets.browser import tool_versions
from flows.benchmark.assets.checks import Agreement, AssetResult, asset_result
from flows.benchmark.stages import MEASURED, ROWS, Figures, figures_of, memory_path, recalled, remember
from schemas.artifacts import AssetArtifact
from schemas.config.run import Config
from schemas.runs import RunRecord, StageRecord
from stages.results.files import StoredFiles
from stages.runtime.keys.code import Code
from stages.runtime.records import write_record
from stages.runtime.store import LocalStore
from tests.support.assets import SOUND, asset_with

SHEET = Image.new("RGB", (16, 8), (200, 30, 30))
COST = {"seconds": 12.0}


def record_of(fingerprint: str) -> RunRecord:
    """A whole run whose stages have one fingerprint."""
    stages = {
        name: StageRecord(name=name, state="computed", seconds=1.0, fingerprint=fingerprint, metrics={"alignment": 0.5})
        for name in MEASURED
    }
    return RunRecord(run="0123abcd", prompt="a ball", config=Config(), created="now", stages=stages)


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by a fingerprint with every measurement; measuring itself is stood in for."""
    made: list[str] = []

    def measured(record: RunRecord, files: StoredFiles, truth: object) -> tuple[Figures, Image.Image]:
        made.append(record.stages["nerf"].fingerprint)
        return {row: {"psnr": 20.125} for row in ROWS}, SHEET

    def artifact(artifact_class: type, record: RunRecord, store: Path) -> AssetArtifact:
        told = {"fingerprint": "f" * 64, "metrics": {}, "peak_memory": 2**30, **COST}
        return AssetArtifact.model_construct(**told)

    monkeypatch.setattr("flows.benchmark.stages._measured", measured)
    monkeypatch.setattr("flows.benchmark.stages.true_mesh", lambda glb, device: None)
    monkeypatch.setattr("flows.benchmark.stages.truth_of", lambda mesh, elevation_deg: None)
    monkeypatch.setattr("flows.benchmark.stages.open_recorded", artifact)
    return made


@pytest.fixture
def take(tmp_path: Path, measurements: list[str]) -> Callable[..., tuple[Figures, Image.Image]]:
    """Ask for the figures of a ball's run."""
    files = StoredFiles(LocalStore(tmp_path / "store"), torch.device("cpu"))

    def call(fingerprint: str = "a" * 64, shape: bytes = b"a ball", elevation_deg: float = 10.0) -> tuple[Figures, Image.Image]:
        (tmp_path / "ball.glb").write_bytes(shape)
        return figures_of(record_of(fingerprint), files, tmp_path / "ball.glb", elevation_deg)

    return call


def test_an_object_is_measured_once(take: Callable, measurements: list[str]) -> None:
    first, sheet = take()
    assert first["neus"] == {"psnr": 20.125, "alignment": 0.5, "seconds": 12.0, "peak_memory_gib": 1.0}
    assert first["untextured"] == {"psnr": 20.125}
    again, same_sheet = take()
    assert len(measurements) == 1
    assert again == first and same_sheet.tobytes() == sheet.tobytes() == SHEET.tobytes()


def test_whatever_the_figures_depend_on_has_them_measured_anew(
    take: Callable, measurements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take()
    take(fingerprint="b" * 64)
    take(shape=b"a cube")
    take(elevation_deg=20.0)
    monkeypatch.setattr(
        "flows.benchmark.stages.code_of_module", lambda module, root: Code(f"other {module}", frozenset(), frozenset())
    )
    take()
    monkeypatch.setattr("flows.benchmark.stages.version", lambda name: f"another {name}")
    take()
    assert len(measurements) == 6
    take()
    assert len(measurements) == 6


def test_costs_are_those_of_the_artifact_that_is_there(
    take: Callable, measurements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take()
    monkeypatch.setitem(COST, "seconds", 99.0)
    assert take()[0]["dmtet"]["seconds"] == 99.0
    assert len(measurements) == 1


@pytest.mark.parametrize("name", ["json", "png"])
@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_damaged_memories_are_measured_again(
    take: Callable, measurements: list[str], tmp_path: Path, name: str, damage: str
) -> None:
    first = take()
    path = next((tmp_path / "store" / "measured").glob(f"*.{name}"))
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "short" else b'{"stages": {"nerf": {}}}')
    assert take()[0] == first[0]
    assert len(measurements) == 2
    assert take()[1].tobytes() == SHEET.tobytes()
    assert len(measurements) == 2


def test_what_cannot_be_read_is_not_recalled(tmp_path: Path) -> None:
    path = memory_path(tmp_path, "flows.benchmark.stages", {"object": 1})
    assert path != memory_path(tmp_path, "flows.benchmark.stages", {"object": 2})
    assert path != memory_path(tmp_path, "flows.benchmark.assets.checks", {"object": 1})
    assert recalled(path) is None
    remember(path, {"psnr": 20.125})
    assert recalled(path) == {"psnr": 20.125}
    path.write_text("[1]")
    assert recalled(path) is None


def test_an_asset_is_drawn_once_while_its_tools_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, drawn, tools = StoredFiles(LocalStore(tmp_path / "store"), torch.device("cpu")), [], [{"node": "1"}]
    found = [SOUND]

    def examined(name: str, record: RunRecord, files: StoredFiles) -> AssetResult:
        drawn.append(name)
        return replace(found[0], name=name)

    monkeypatch.setattr("flows.benchmark.assets.checks._examined", examined)
    monkeypatch.setattr("flows.benchmark.assets.checks.tool_versions", lambda: tools[0])
    write_record(tmp_path / "store", record_of("a" * 64))
    found[0] = asset_with(normals=Agreement(30.0, 29.0))
    first = asset_result("a", "0123abcd", files)
    assert asset_result("b", "0123abcd", files) == replace(first, name="b")
    assert drawn == ["a"]
    tools[0] = {"node": "2"}
    asset_result("c", "0123abcd", files)
    assert drawn == ["a", "c"]
    for path in (tmp_path / "store" / "measured").glob("*.json"):
        content = json.loads(path.read_text())
        del content["ours"]
        path.write_text(json.dumps(content))
    asset_result("d", "0123abcd", files)
    assert drawn == ["a", "c", "d"]


def test_an_asset_that_no_browser_drew_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def examined(name: str, record: RunRecord, files: StoredFiles) -> AssetResult:
        drawn.append(name)
        return asset_with(name=name, browser=None, note="no browser")

    monkeypatch.setattr("flows.benchmark.assets.checks._examined", examined)
    write_record(tmp_path / "store", record_of("a" * 64))
    files = StoredFiles(LocalStore(tmp_path / "store"), torch.device("cpu"))
    for _ in range(2):
        assert asset_result("a", "0123abcd", files).note == "no browser"
    assert len(drawn) == 2


def test_tools_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.benchmark.assets.browser.module_folders", lambda: [tmp_path])
    monkeypatch.setattr("flows.benchmark.assets.browser.browser_path", lambda: None)
    monkeypatch.setattr("flows.benchmark.assets.browser.shutil.which", lambda name: None)
    bare = tool_versions()
    (tmp_path / ".package-lock.json").write_text('{"three": "1"}')
    one = tool_versions()
    (tmp_path / ".package-lock.json").write_text('{"three": "2"}')
    two = tool_versions()
    shutil.copy(__file__, tmp_path / "chromium")
    monkeypatch.setattr("flows.benchmark.assets.browser.browser_path", lambda: str(tmp_path / "chromium"))
    three = tool_versions()
    assert len({json.dumps(found) for found in (bare, one, two, three)}) == 4
