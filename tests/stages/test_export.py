"""From the texture stage's mesh and colours to an asset: size, budget, maps, notes, what the file says of itself."""

from pathlib import Path

import pytest
import torch
import trimesh

from dreampolish.assets.textured_mesh import render_textured_mesh
from dreampolish.assets.validate import glb_findings
from dreampolish.assets.writing.glb import read_glb
from dreampolish.fields.color import ColorField
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.metrics.pictures import psnr
from dreampolish.priors.folders.licences import licences_in_card
from dreampolish.renderers.mesh import Mesh, color_of_field, mesh_from_parts
from dreampolish.scene.cameras import SCENE_HALF_SIZE, turntable_cameras
from schemas.config.export import ExportConfig
from schemas.config.run import PriorsConfig, TextSource, ViewSource
from stages.export import WEB_TRIANGLES, MadeAsset, make_asset, packed_glb, read_asset, triangle_budget
from stages.guidance.priors import prior_licences
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError

SIZES = GridSizes(n_levels=4, n_features=2, base_resolution=4, growth=1.5, table_size=2048, half_size=SCENE_HALF_SIZE)
SMALL = ExportConfig(triangle_budget=600, texture_size=256)


@pytest.fixture(scope="module")
def source() -> Mesh:
    """An egg, its longest side 1.0 along z, with a crumb beside it."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5).apply_scale([0.6, 0.7, 1.0])
    crumb = trimesh.creation.icosphere(subdivisions=1, radius=0.01).apply_translation([0.6, 0, 0])
    both = trimesh.util.concatenate([ball, crumb])
    return mesh_from_parts(torch.tensor(both.vertices, dtype=torch.float32), torch.tensor(both.faces, dtype=torch.int64))


@pytest.fixture(scope="module")
def colors() -> ColorField:
    generator = torch.Generator().manual_seed(1)
    field = ColorField(SIZES, 16, generator)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return field


@pytest.fixture(scope="module")
def made(source: Mesh, colors: ColorField) -> MadeAsset:
    return make_asset(source, colors, SMALL, "egg", {"prompt": "an egg"})


def test_a_web_asset_is_small_metric_and_looks_like_its_stage(
    source: Mesh, colors: ColorField, made: MadeAsset, tmp_path: Path
) -> None:
    assert len(made.solid.faces) <= 600
    assert made.asset.normal_map is not None
    content, notes = packed_glb(made, SMALL)
    assert (notes, made.notes) == ((), ())
    assert not glb_findings(content).errors
    path = tmp_path / "egg.glb"
    path.write_bytes(content)
    whole = read_glb(path).vertices
    assert float((whole.amax(0) - whole.amin(0)).max()) == pytest.approx(1.0)
    assert float(whole[:, 0].max()) < 0.4  # the crumb is off
    cameras = turntable_cameras(3, 15.0, 20.0, 96)
    with torch.no_grad():
        truth = source.render(cameras, color_of_field(colors), 2, True)
        back = render_textured_mesh(read_asset(path, made.metres_per_unit), cameras, 2, False)
    inside = (truth.alpha > 0.999)[..., None].float()
    assert psnr(back.rgb * inside, truth.rgb * inside).min() > 32


def test_the_longest_side_is_what_was_asked_for(source: Mesh, colors: ColorField) -> None:
    tall = make_asset(source, colors, SMALL.model_copy(update={"longest_side": 0.25}), "egg", {})
    sides = tall.asset.mesh.vertices.amax(0) - tall.asset.mesh.vertices.amin(0)
    assert float(sides.max()) == pytest.approx(0.25)
    assert tall.metres_per_unit == pytest.approx(0.25, rel=0.02)


def test_base_keeps_every_triangle_and_is_lossless(source: Mesh, colors: ColorField) -> None:
    config = SMALL.model_copy(update={"quality": "base"})
    base = make_asset(source, colors, config, "egg", {})
    assert len(base.solid.faces) == len(source.faces) - 80  # the crumb's
    assert base.asset.normal_map is None
    content, _ = packed_glb(base, config)
    assert b"image/png" in content
    assert b"image/jpeg" not in content


def test_budgets_are_lowered_with_a_note() -> None:
    wide = ExportConfig(triangle_budget=500_000, size_limit_mb=1000.0)
    assert triangle_budget(wide)[0] == WEB_TRIANGLES
    narrow = ExportConfig(triangle_budget=100_000)
    allowed, notes = triangle_budget(narrow)
    assert allowed == 40_000
    assert notes == ("at most 40,000 triangles fit into 3 MB (asked for: 100,000)",)
    assert triangle_budget(ExportConfig()) == (40_000, ())
    assert triangle_budget(ExportConfig(quality="base", triangle_budget=500_000)) == (500_000, ())


def test_a_glb_fits_by_quality_then_by_smaller_maps_or_is_refused(made: MadeAsset) -> None:
    told = set()
    size = len(packed_glb(made, SMALL)[0])
    limits = [size * share for share in torch.linspace(1.0, 0.3, 15).tolist()]
    for limit in limits:
        try:
            content, notes = packed_glb(made, SMALL.model_copy(update={"size_limit_mb": limit / 1e6}))
        except StageError:
            break
        assert len(content) <= limit
        assert not glb_findings(content).errors
        told |= {note.partition(", to fit")[0] for note in notes} or {"same size"}
    assert told == {"same size", "maps of 128 pixels, not 256"}
    with pytest.raises(StageError, match=r"the limit is 0\.005 MB"):
        packed_glb(made, SMALL.model_copy(update={"size_limit_mb": 0.005}))


def test_licences_come_from_the_priors_cards(run_context: RunContext, tmp_path: Path) -> None:
    assert licences_in_card("---\nlicense: openrail++\ntags: [x]\n---\nMIT") == ["openrail++"]
    assert licences_in_card("386 CC-BY-3.0, 76 CC-BY-3.0-US, 143 CC0-1.0; (Apache-2.0)") == [
        "Apache-2.0",
        "CC-BY-3.0",
        "CC-BY-3.0-US",
        "CC0-1.0",
    ]
    (tmp_path / "text").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    priors = PriorsConfig(text=TextSource(source=str(tmp_path / "text")), view=ViewSource(source="a/b", revision="0" * 40))
    told = prior_licences(run_context.model_copy(update={"priors": priors}))
    assert told["text"] == "mit; see the model card of text"
    assert told["view"] == f"see the model card of a/b at {'0' * 40}"
    assert "CC0-1.0" in told["normals"]
    assert str(tmp_path) not in str(told)
