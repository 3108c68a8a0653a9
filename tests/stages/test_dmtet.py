"""stages/dmtet.py: where the light of drawn references goes."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dreampolish.fields.color import ColorField
from dreampolish.fields.sdf import SdfField
from dreampolish.mesh.tet_grid import tet_grid
from dreampolish.scene.cameras import orbit_cameras
from schemas.artifacts import ReferenceArtifact, SdfArtifact
from schemas.config.dmtet import DmtetConfig
from schemas.config.shared.geometry import GridConfig
from schemas.plans import NO_PLAN
from stages import dmtet
from stages.guidance.reference_view import ReferenceView
from stages.guidance.studio_light import NO_LIGHT, PaintedLight, studio_factor
from stages.runtime.context import RunContext
from stages.runtime.stage import Stage

YELLOW = torch.tensor([0.8, 0.7, 0.1])
CONFIG = DmtetConfig(tet_resolution=16, grid=GridConfig(n_levels=4, log2_table_size=11), color_fit_steps=400)


class LitBall:
    """A yellow ball of radius 0.5 as NeuS would hand it over: with eight tenths of the studio's light in its colours."""

    def sdf(self, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=-1) - 0.5

    def color(self, points: torch.Tensor) -> torch.Tensor:
        return YELLOW * studio_factor(torch.nn.functional.normalize(points, dim=-1)) ** 0.8


def yellow_picture() -> ReferenceView:
    camera = orbit_cameras(torch.zeros(1), torch.zeros(1), torch.full((1,), 20.0), 8)
    rgb = YELLOW.expand(1, 8, 8, 3)
    return ReferenceView(rgb, torch.ones(1, 8, 8), torch.zeros(1, 8, 8, 3), camera, "a ball", rgb)


def colors_of_ball(in_studio: ReferenceView | None) -> tuple[ColorField, PaintedLight]:
    stage = cast(Stage, SimpleNamespace(generator=torch.Generator().manual_seed(3), device=torch.device("cpu")))
    ball = LitBall()
    grid = tet_grid(16, 0.7)
    surface = dmtet.TetSurface(grid, ball.sdf(grid.vertices))
    return dmtet._colors_from_sdf(CONFIG, cast(SdfField, ball), surface, stage, in_studio)


def color_at(colors: ColorField, *place: float) -> torch.Tensor:
    return colors(torch.tensor([place])).detach()[0]


def test_a_back_in_the_studio_looks_like_the_front() -> None:
    colors, light = colors_of_ball(yellow_picture())
    assert light.shares == pytest.approx((0.8, 0.8, 0.8), abs=0.05)
    for place in ((0.5, 0.0, 0.0), (-0.5, 0.0, 0.0), (0.0, 0.5, 0.0)):
        torch.testing.assert_close(color_at(colors, *place), YELLOW, atol=0.1, rtol=0)


def test_a_back_in_unknown_light_stays_as_it_is() -> None:
    colors, light = colors_of_ball(None)
    assert light == NO_LIGHT
    dark = YELLOW * (0.55 / 0.898) ** 0.8
    torch.testing.assert_close(color_at(colors, -0.5, 0.0, 0.0), dark, atol=0.1, rtol=0)


class Asked(Exception):
    """Ends the stage when it has said which light it takes the reference to stand in."""


@pytest.mark.parametrize(
    ("drawn_light", "is_user_image", "in_studio"),
    [("studio", False, True), ("studio", True, False), ("unknown", False, False), ("unknown", True, False)],
)
def test_only_drawn_references_stand_in_the_studio(
    drawn_light: str, is_user_image: bool, in_studio: bool, run_context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, stage = yellow_picture(), SimpleNamespace(device=torch.device("cpu"), run=run_context, execution=NO_PLAN)

    def ask(config: Any, source: Any, surface: Any, stage: Any, in_studio: ReferenceView | None) -> None:
        raise Asked(in_studio is view)

    monkeypatch.setattr(dmtet, "load_reference", lambda *arguments: view)
    monkeypatch.setattr(dmtet, "load_sdf", lambda *arguments: LitBall())
    monkeypatch.setattr(dmtet, "_colors_from_sdf", ask)
    reference = ReferenceArtifact.model_construct(is_user_image=is_user_image)
    config = CONFIG.model_copy(update={"drawn_light": drawn_light})
    with pytest.raises(Asked) as asked:
        dmtet.extract_mesh._function(stage, reference, SdfArtifact.model_construct(), config)  # type: ignore[arg-type]
    assert asked.value.args == (in_studio,)
