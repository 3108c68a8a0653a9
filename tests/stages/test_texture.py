"""What the stages hold on to of a mesh's colours."""

import pytest
import torch
import trimesh

from dreampolish.fields.color import ColorField
from dreampolish.priors.distillation.guidance import GuidanceStep
from dreampolish.priors.distillation.scores import Noised, TextConditions, variational_losses
from dreampolish.priors.text.networks import UnetNetwork
from dreampolish.priors.text.prior import DiffusionTextPrior
from dreampolish.renderers.mesh import color_of_field, fixed_color_of_field, mesh_from_parts
from dreampolish.scene.cameras import orbit_cameras
from schemas.config.dmtet import DmtetConfig
from schemas.config.texture import TextureConfig
from stages.guidance.grids import grid_sizes
from stages.guidance.reference_view import ReferenceView, reference_color_loss
from stages.runtime.context import RunContext
from stages.texture import Variational, drift_loss, open_variational
from tests.support.tiny_priors import CHANNELS, CountingTower, tiny_space, tiny_unet


def test_drift_is_free_for_detail_that_keeps_the_mean() -> None:
    before = torch.full((1, 32, 32, 3), 0.5)
    stripes = before.clone()
    stripes[:, ::2] += 0.2
    stripes[:, 1::2] -= 0.2
    covered = torch.ones(1, 32, 32)
    assert float(drift_loss(stripes, before, covered, 16)) == pytest.approx(0.0, abs=1e-6)
    assert float(drift_loss(stripes, before, covered, 1)) == pytest.approx(0.2, abs=1e-6)


def test_drift_is_the_mean_change_of_the_covered_part() -> None:
    before = torch.ones(2, 32, 32, 3)
    darker, covered = before.clone(), torch.zeros(2, 32, 32)
    darker[:, :16, :16], covered[:, :16, :16] = 0.7, 1.0
    assert float(drift_loss(darker, before, covered, 16)) == pytest.approx(0.3, abs=1e-6)


def test_fixed_colours_are_the_same_without_a_gradient() -> None:
    field = ColorField(grid_sizes(DmtetConfig().grid), 16, torch.Generator().manual_seed(1))
    points = torch.rand(10, 3, generator=torch.Generator().manual_seed(2)) - 0.5
    normals = torch.zeros_like(points)
    learned, fixed = color_of_field(field)(points, normals), fixed_color_of_field(field)(points, normals)
    assert torch.equal(learned, fixed)
    assert learned.requires_grad and not fixed.requires_grad


def white_square() -> ReferenceView:
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:12, 4:12] = 1.0
    camera = orbit_cameras(torch.zeros(1), torch.zeros(1), torch.full((1,), 20.0), 16)
    white = torch.ones(1, 16, 16, 3)
    return ReferenceView(white, mask, torch.zeros(1, 16, 16, 3), camera, "a box", white)


def test_reference_colours_count_well_inside_the_mask_alone() -> None:
    view = white_square()
    rgb = torch.zeros(1, 16, 16, 3)
    rgb[:, 6:10, 6:10] = 0.75
    assert float(reference_color_loss(rgb, view, 2)) == pytest.approx(0.25)
    assert float(reference_color_loss(rgb, view, 0)) == pytest.approx(1 - 0.75 * 16 / 64)


def test_gradients_in_colours_match_finite_differences() -> None:
    def pictures(n: int, size: int) -> torch.Tensor:
        return torch.rand(n, size, size, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64)

    view, rgb = white_square(), pictures(1, 16).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: reference_color_loss(x, view, 2), (rgb,))
    before, covered = pictures(3, 7)[:2], torch.full((2, 7, 7), 0.4)
    for window in (1, 3):
        assert torch.autograd.gradcheck(lambda x: drift_loss(x, before, covered, window), (pictures(2, 7).requires_grad_(),))


def test_a_still_meshs_picture_teaches_colours_and_its_mask_shape() -> None:
    box = trimesh.creation.box((0.5, 0.6, 0.7))
    vertices = torch.tensor(box.vertices, dtype=torch.float32).requires_grad_()
    mesh = mesh_from_parts(vertices, torch.tensor(box.faces))
    field = ColorField(grid_sizes(DmtetConfig().grid), 16, torch.Generator().manual_seed(1))
    camera = orbit_cameras(torch.tensor([30.0]), torch.tensor([20.0]), torch.tensor([20.0]), 32)
    seen = mesh.moved(vertices.detach()).render(camera, color_of_field(field), 1, True)
    mask = mesh.coverage(seen, camera)
    torch.testing.assert_close(mask, mesh.render(camera, color_of_field(field), 1, True).alpha)
    seen.rgb.sum().backward()
    assert vertices.grad is None
    assert all(parameter.grad is not None for parameter in field.network.parameters())
    mask.sum().backward()
    assert vertices.grad is not None
    outward = (vertices.grad * vertices.detach()).sum()
    assert float(outward) > 1.0  # a larger box covers more pixels


def _gradients_of_one_update(number_format: torch.dtype, shrink: float) -> torch.Tensor:
    """Of the LoRA's weights, after one update on random latents; shrink: factor on the loss, to reach where float16 ends."""
    generator = torch.Generator().manual_seed(0)
    prior = DiffusionTextPrior(tiny_space(), UnetNetwork(tiny_unet(CHANNELS, pose_labels=False)), CountingTower())
    prior.compute_in(torch.float32, adapter=number_format)
    domain = prior.add_lora(4, generator)
    with torch.no_grad():
        for name, weight in domain.state_dict().items():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    config = TextureConfig(lora_lr=1e-6)
    variational = Variational(domain, prior, config, torch.Generator().manual_seed(1))
    latents = torch.randn(2, CHANNELS, 4, 4, generator=generator)
    text = prior.embed(["a red chair"]).expand(2)
    noised = Noised(latents, latents, torch.tensor([0, 0]), latents)
    guided = GuidanceStep(torch.zeros(()), noised, {}, TextConditions(text, text, text, text))
    cameras = orbit_cameras(torch.zeros(2), torch.zeros(2), torch.full((2,), 20.0), 8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "stages.texture.variational_losses", lambda **given: (part * shrink for part in variational_losses(**given))
        )
        variational.fit(guided, cameras)
    return torch.cat([each.grad.flatten() for each in domain.parameters() if each.grad is not None])


def test_a_lora_under_a_network_in_halves_learns_what_it_learns_in_whole_numbers() -> None:
    exact = _gradients_of_one_update(torch.float32, 1e-5)
    halves = _gradients_of_one_update(torch.float16, 1e-5)
    assert float(torch.nn.functional.cosine_similarity(halves, exact, dim=0)) > 0.999
    assert int(((halves == 0) & (exact.abs() > 1e-12)).sum()) < 0.01 * len(exact)


def test_the_losss_scale_is_part_of_a_checkpoint() -> None:
    prior = DiffusionTextPrior(tiny_space(), UnetNetwork(tiny_unet(CHANNELS, pose_labels=False)), CountingTower())
    prior.compute_in(torch.float32, adapter=torch.float16)
    one, other = (
        Variational(prior.add_lora(4, torch.Generator().manual_seed(seed)), prior, TextureConfig(), torch.Generator())
        for seed in (1, 2)
    )
    one._scaler.scale(torch.zeros(()))
    one._scaler.update(512.0)
    other.load_state_dict(one.state_dict())
    assert other.state_dict()["scaler"] == one.state_dict()["scaler"]
    assert other._scaler.get_scale() == 512.0


@pytest.mark.usefixtures("store")
def test_a_restored_lora_draws_what_it_would_have_drawn(run_context: RunContext) -> None:
    prior = DiffusionTextPrior(tiny_space(), UnetNetwork(tiny_unet(CHANNELS, pose_labels=False)), CountingTower())
    one, other = (open_variational(run_context, prior, TextureConfig(objective="dsd")) for _ in range(2))
    assert one is not None and other is not None
    assert torch.equal(one.state_dict()["generator"], other.state_dict()["generator"]), "of the run's seed alone"
    torch.rand(3, generator=one.generator)
    other.load_state_dict(one.state_dict())
    assert torch.equal(torch.rand(5, generator=one.generator), torch.rand(5, generator=other.generator))
    assert open_variational(run_context, prior, TextureConfig(objective="sds")) is None
