"""Which validator speaks of a GLB."""

from pathlib import Path

import pytest
import torch
import trimesh

from dreampolish.assets.asset import plain_asset
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.unwrap import unwrap
from dreampolish.assets.writing.glb import write_glb
from flows.runs.files.validate import findings_of, khronos_findings

NODE_MODULES = Path(__file__).parents[3] / "node_modules"


@pytest.fixture(scope="module")
def glb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    box = trimesh.creation.box((0.5, 0.3, 1.0))
    cut = unwrap(torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces), 64, 2)
    everywhere = torch.zeros(len(cut.faces), dtype=torch.int64)
    path = tmp_path_factory.mktemp("glb") / "box.glb"
    mesh = TexturedMesh(cut.vertices, cut.normals, cut.uv, cut.faces, (torch.full((64, 64, 3), 0.5),), everywhere)
    write_glb(path, plain_asset(mesh, "box", {}), None)
    return path


@pytest.mark.skipif(not (NODE_MODULES / "gltf-validator").is_dir(), reason="npm install gltf-validator")
def test_the_khronos_validator_speaks_where_it_is_installed(glb: Path, tmp_path: Path) -> None:
    found = findings_of(glb, [NODE_MODULES])
    assert found.checker == "Khronos glTF validator"
    assert (found.errors, found.warnings) == ((), ())
    damaged = tmp_path / "damaged.glb"
    damaged.write_bytes(glb.read_bytes().replace(b'"componentType":5126', b'"componentType":5125', 1))
    assert findings_of(damaged, [NODE_MODULES]).errors
    damaged.write_bytes(b"nonsense")
    assert findings_of(damaged, [NODE_MODULES]).errors


def test_without_it_trimesh_speaks(glb: Path, tmp_path: Path) -> None:
    assert khronos_findings(glb, [tmp_path]) is None
    found = findings_of(glb, [tmp_path])
    assert (found.checker, found.errors, found.figures) == ("trimesh's glTF schema", (), {"triangles": 12.0})
    with pytest.raises(FileNotFoundError):
        findings_of(tmp_path / "none.glb", [tmp_path])
