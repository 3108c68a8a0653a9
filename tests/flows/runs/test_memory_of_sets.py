"""The plan of a run whose views are painted in sets, whose normals come from an ONNX file, and that has a depth prior beside."""

from pathlib import Path

import pytest

from flows.runs.create import CONFIGS, with_plan
from flows.runs.memory.plan import plan_of
from flows.runs.memory.told import told
from schemas.config.presets import load_config
from schemas.config.run import Config
from schemas.runs import STAGES, RunRecord
from tests.support.hub_folders import write_stable_diffusion, write_zero123
from tests.support.onnx_file import RED_LESS_GREEN
from tests.support.set_folders import write_imagedream, write_zero123plus
from tests.support.tiny_priors import write_clip, write_depth

GEOMETRY = ("nerf", "neus", "dmtet")
PAINTED = "targets={rgb_weight: 100, mask_weight: 10, n_views: 24}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub = tmp_path_factory.mktemp("hub")
    write_stable_diffusion(hub / "text")
    write_zero123(hub / "view")
    write_zero123plus(hub / "zero123plus-v1.2")
    write_imagedream(hub / "imagedream")
    (hub / "onnx").mkdir()
    (hub / "onnx/model.onnx").write_bytes(RED_LESS_GREEN)
    (hub / "depth").mkdir()
    write_depth(hub / "depth", "relative")
    (hub / "clip").mkdir()
    write_clip(hub / "clip")
    return hub


def _config(hub: Path, *more: str) -> Config:
    sources = [f"priors.{role}.source={hub / name}" for role, name in (("text", "text"), ("view", "view"), ("normals", "onnx"))]
    return load_config("sd", CONFIGS, ["device=cpu", *sources, *more])


def _painting(*, view_weight: float) -> list[str]:
    return [f"{name}.{setting}" for name in GEOMETRY for setting in (f"view.weight={view_weight}", PAINTED)]


@pytest.mark.parametrize("name", ["zero123plus-v1.2", "imagedream"])
def test_a_painter_of_sets_has_its_part_in_the_plan(hub: Path, name: str) -> None:
    config = _config(hub, f"priors.views.source={hub / name}", *_painting(view_weight=0))
    plan = plan_of(config, 8.0, STAGES)
    for stage in GEOMETRY:
        parts = plan.stages[stage]
        assert parts.kept["set prior's weights"] > 0 and parts.moments["painting"] > 0
        # The view prior paints nothing here and is not opened.
        assert "view prior's weights" not in parts.kept and "view prior" not in parts.moments
    assert "set prior's weights" not in plan.stages["texture"].kept  # it paints no targets
    both = plan_of(_config(hub, f"priors.views.source={hub / name}", *_painting(view_weight=0.1)), 8.0, STAGES)
    assert {"set prior's weights", "view prior's weights", "text prior's weights"} <= set(both.stages["neus"].kept)


def test_sets_are_painted_one_after_the_other_on_a_small_card(hub: Path) -> None:
    config = _config(hub, f"priors.views.source={hub / 'imagedream'}", *_painting(view_weight=0))
    whole = plan_of(config, 80.0, STAGES).stages["dmtet"]
    small = plan_of(config, whole.total_gib - 0.01, STAGES).stages["dmtet"]
    assert small.moments["painting"] <= whole.moments["painting"]
    assert whole.execution.rows_at_once == 4 * whole.execution.views_at_once  # type: ignore[operator]


def test_what_runs_on_the_cpu_takes_nothing_of_the_card(hub: Path) -> None:
    plan = plan_of(_config(hub, f"priors.matting.source={hub / 'onnx'}"), 8.0, STAGES)
    size = len(RED_LESS_GREEN) / 2**30
    assert plan.stages["reference"].on_cpu == pytest.approx({"normal prior": size, "matting": size})
    assert plan.stages["polish"].on_cpu == pytest.approx({"normal prior": size})
    assert plan.stages["polish"].kept["normal prior's weights"] == 0
    assert any(line.startswith("polish") and "on the CPU: normal prior" in line for line in told(plan))


def test_depth_and_clip_are_parts_of_the_reference(hub: Path) -> None:
    named = [f"priors.{role}.source={hub / role}" for role in ("depth", "clip")]
    parts = plan_of(_config(hub, *named), 8.0, STAGES).stages["reference"].moments
    assert parts["depth"] > 0 and parts["CLIP"] > 0
    assert not {"depth", "CLIP"} & set(plan_of(_config(hub), 8.0, STAGES).stages["reference"].moments)


def test_a_run_that_keeps_its_geometry_plans_what_it_computes(hub: Path) -> None:
    record = RunRecord(run="a" * 8, prompt="a chair", config=_config(hub), created="now", computes=("texture", "export"))
    plan = with_plan(record, 8.0, is_new=False).plan
    assert plan is not None and list(plan.stages) == ["texture"] and plan.asked
