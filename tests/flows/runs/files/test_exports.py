"""`dreampolish export` and `validate` on a stored texture: nothing upstream is computed, nothing is written over."""

import json
from pathlib import Path

import pytest
import torch
import trimesh
from safetensors.torch import save_file
from typer.testing import CliRunner

from dreampolish.fields.color import ColorField
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.optim.atomic_files import sha256_of
from dreampolish.scene.cameras import SCENE_HALF_SIZE
from flows.cli import app
from schemas.artifacts import Artifact, FileRef, ReferenceArtifact, StageName, TexturedMeshArtifact
from schemas.config.run import Config
from schemas.runs import RunRecord, StageRecord
from stages.runtime.records import read_record, write_record
from stages.runtime.store import LocalStore

SIZES = GridSizes(n_levels=2, n_features=2, base_resolution=4, growth=1.5, table_size=512, half_size=SCENE_HALF_SIZE)
SMALL = ["--triangles", "200", "--texture", "128"]


def _published(store: LocalStore, name: StageName, mark: str, files: dict[str, bytes], **fields: object) -> Artifact:
    fingerprint = mark * 64
    work = store.work_folder(name, fingerprint)
    references = {}
    for key, content in files.items():
        path = work / f"{key}.bin"
        path.write_bytes(content)
        references[key] = FileRef(path=path.name, sha256=sha256_of(path), bytes=len(content))
    common = {"fingerprint": fingerprint, "parents": {}, "metrics": {}, "seconds": 1.0, "peak_memory": 0}
    kind = ReferenceArtifact if name == "reference" else TexturedMeshArtifact
    return store.publish(work, kind.model_validate({**common, **references, **fields}))


@pytest.fixture
def textured_run(store: Path, tmp_path: Path) -> str:
    """A run that has a reference and a texture, and nothing else."""
    local = LocalStore(store)
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    field = ColorField(SIZES, 8, torch.Generator().manual_seed(0))
    save_file({"vertices": torch.tensor(ball.vertices, dtype=torch.float32), "faces": torch.tensor(ball.faces)}, tmp_path / "m")
    save_file({name: value.detach().clone() for name, value in field.state_dict().items()}, tmp_path / "c")
    pictures = dict.fromkeys(("image", "image_rgba", "mask", "normals"), b"unread")
    told = {"candidates": None, "prompt": "a <red> ball", "elevation_deg": 10.0, "is_user_image": False}
    reference = _published(local, "reference", "a", pictures, **told)
    files = {"mesh": (tmp_path / "m").read_bytes(), "color_field": (tmp_path / "c").read_bytes()}
    described = {"color_config": field.field_config, "n_vertices": len(ball.vertices), "n_faces": len(ball.faces)}
    texture = _published(local, "texture", "b", files, **described)
    stages = {
        artifact.stage: StageRecord(
            name=artifact.stage, state="computed", seconds=1.0, fingerprint=artifact.fingerprint, metrics={}
        )
        for artifact in (reference, texture)
    }
    config = Config(device="cpu", threads=1)
    write_record(
        store,
        RunRecord(run="0123abcd", prompt="a <red> ball", config=config, created="2026-01-01T00:00:00+00:00", stages=stages),
    )
    return "0123abcd"


def _json(*arguments: str) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_every_format_lies_beside_the_others_and_is_sound(textured_run: str, store: Path) -> None:
    before = read_record(store, textured_run)
    known = {path for path in store.rglob("*") if path.is_file()}
    written: set[str] = set()
    for kind in ("glb", "obj", "ply", "stl", "usdz"):
        done = _json("export", textured_run[:4], "--format", kind, *SMALL)
        assert done["triangles"] <= 200
        assert Path(done["output"]).parent.name == f"a-red-ball-{textured_run}"
        assert not written & set(done["files"])
        written |= set(done["files"])
        checked = _json("validate", done["output"])
        assert (checked["errors"], checked["warnings"]) == ([], [])
        assert checked["figures"]["triangles"] == done["triangles"]
    assert read_record(store, textured_run) == before  # settings and stages of the run stay
    assert {path for path in store.rglob("*") if path.is_file()} <= known | {store / "last-error.log"}


def test_the_same_export_again_gets_a_name_of_its_own(textured_run: str) -> None:
    first, second = (Path(_json("export", textured_run, "--format", "stl", *SMALL)["output"]) for _ in range(2))
    assert first != second
    assert first.read_bytes() == second.read_bytes()
    base = Path(_json("export", textured_run, "--format", "stl", "--quality", "base", "--longest-side", "2")["output"])
    sides = trimesh.load_mesh(base).extents
    assert sides.max() == pytest.approx(2.0)
    assert len(trimesh.load_mesh(base).faces) == 1280


def test_the_file_says_where_it_comes_from(textured_run: str) -> None:
    content = Path(_json("export", textured_run, *SMALL)["output"]).read_bytes()
    document = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    extras = document["asset"]["extras"]
    assert (extras["prompt"], extras["seed"]) == ("a <red> ball", 0)
    assert extras["fingerprints"]["texture"] == "b" * 64
    assert "CC0-1.0" in extras["licences"]["text"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--format", "fbx"], "no format 'fbx'; there are glb, obj, ply, stl, usdz"),
        (["--texture", "1000"], "texture_size"),
        (["--triangles", "3"], "triangle_budget"),
        (["--quality", "base", "--triangles", "500"], "base keeps every triangle"),
        (["--set", "texture.steps=3"], "is no setting of the export"),
    ],
)
def test_mistakes_cost_one_line(textured_run: str, arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["export", textured_run, *arguments])
    assert done.exit_code == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_run_without_texture_is_told_what_to_do(textured_run: str, store: Path) -> None:
    record = read_record(store, textured_run)
    write_record(store, record.model_copy(update={"stages": {"reference": record.stages["reference"]}}))
    done = CliRunner().invoke(app, ["export", textured_run])
    assert done.exit_code == 2
    assert "has no texture yet; dreampolish resume" in done.stderr


def test_validate_ends_non_zero_on_a_bad_file(tmp_path: Path, store: Path) -> None:
    bad = tmp_path / "bad.glb"
    bad.write_bytes(b"glTF nonsense that is long enough to be read")
    done = CliRunner().invoke(app, ["validate", str(bad)])
    assert done.exit_code == 1
    assert "bad.glb is not sound" in done.stderr
    for name, told in (("none.glb", "none.glb cannot be read: No such file or directory"), ("asset.fbx", "cannot be checked")):
        refused = CliRunner().invoke(app, ["validate", str(tmp_path / name)])
        assert refused.exit_code == 2
        assert told in refused.stderr


def test_a_print_is_one_certified_body_in_millimetres(textured_run: str, tmp_path: Path) -> None:
    pytest.importorskip("manifold3d")
    told = CliRunner().invoke(app, ["export", textured_run, "--print", "--format", "stl", "--flat-base", "2", "--json"])
    assert told.exit_code == 0, told.output
    file, said = (Path(each) for each in json.loads(told.stdout.splitlines()[-1])["files"])
    facts = json.loads(said.read_text())
    assert (facts["watertight"], facts["bodies"], facts["file"], facts["sha256"]) == (True, 1, file.name, sha256_of(file))
    mesh = trimesh.load_mesh(file)
    assert mesh.is_volume and mesh.body_count == 1
    assert max(mesh.extents) == pytest.approx(100.0, abs=0.1) and mesh.bounds[0][2] == pytest.approx(0, abs=1e-4)
    assert facts["base_mm2"] > 100 and facts["volume_cm3"] == pytest.approx(mesh.volume / 1000)
    again = CliRunner().invoke(app, ["export", textured_run, "--print", "--format", "stl", "--longest-side", "0.02", "--json"])
    assert max(trimesh.load_mesh(json.loads(again.stdout.splitlines()[-1])["output"]).extents) == pytest.approx(20.0, abs=0.02)


def test_what_does_not_go_with_printing_costs_one_line(textured_run: str) -> None:
    for words, said in (
        (["--print", "--format", "glb"], "--print writes 3mf and stl, not glb"),
        (["--flat-base", "2"], "--flat-base goes with --print alone"),
        (["--format", "3mf"], "no format '3mf'"),
    ):
        told = CliRunner().invoke(app, ["export", textured_run, *words])
        assert told.exit_code == 2 and said in told.stderr and len(told.stderr.strip().splitlines()) == 1


def test_a_file_tells_its_making_and_finds_its_run(textured_run: str, tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["export", textured_run, *SMALL, "--json"])
    file = json.loads(made.stdout.splitlines()[-1])["output"]
    told = CliRunner().invoke(app, ["show", file, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout.splitlines()[-1])
    assert (found["prompt"], found["run"]) == ("a <red> ball", textured_run)
    assert found["command"].startswith("dreampolish run")
    (tmp_path / "other.glb").write_bytes(trimesh.creation.box().export(file_type="glb"))
    for name, said in (("other.glb", "says nothing of its making"), ("gone.glb", "cannot be read")):
        refused = CliRunner().invoke(app, ["show", str(tmp_path / name)])
        assert refused.exit_code == 2 and said in refused.stderr
