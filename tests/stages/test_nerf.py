"""The nerf stage's own terms on a small scene."""

import torch

from dreampolish.optim.fit import Term
from dreampolish.renderers.scenes import DensityScene
from dreampolish.scene.cameras import turntable_cameras
from schemas.config.nerf import NerfConfig
from schemas.config.shared.geometry import OpeningGridConfig
from stages.nerf import _empty_scene, _regularizers

CONFIG = NerfConfig(
    grid=OpeningGridConfig(n_levels=4, log2_table_size=11, start_level=4, hidden_size=16),
    occupancy_resolution=16,
    samples_per_ray=32,
)


def _terms(scene: DensityScene, step: int) -> dict[str, Term]:
    cameras = turntable_cameras(2, 15.0, 20.0, 12)
    scene.update_occupancy(0, early_steps=1)
    return _regularizers(CONFIG, (step, CONFIG.steps), scene.render(cameras, with_normals=False, stratified=False))


def test_regularisers_have_grown_when_the_switch_may_first_hand_over() -> None:
    last = int(CONFIG.switch.min_fraction * CONFIG.steps) - 1
    for weight in (CONFIG.opacity_entropy_weight, CONFIG.sparsity_weight, CONFIG.distortion_weight):
        assert weight.at(last, CONFIG.steps) > 0.99 * weight.end > 2 * weight.at(0, CONFIG.steps)


def test_the_distortion_term_joins_late_and_gathers_the_density() -> None:
    scene = _empty_scene(CONFIG, torch.Generator().manual_seed(0))
    assert "distortion" not in _terms(scene, 0)
    first = _terms(scene, CONFIG.steps - 1)
    assert first["distortion"].weight == CONFIG.distortion_weight.end > 0
    optimizer = torch.optim.Adam(scene.field.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        terms = _terms(scene, CONFIG.steps - 1)
        # Without something that asks for matter the ball would simply vanish.
        (terms["distortion"].loss - 0.05 * terms["sparsity"].loss).backward()
        optimizer.step()
    last = _terms(scene, CONFIG.steps - 1)
    assert float(last["distortion"].loss.detach()) < 0.2 * float(first["distortion"].loss.detach())
    assert float(last["sparsity"].loss.detach()) > 0.6 * float(first["sparsity"].loss.detach())
