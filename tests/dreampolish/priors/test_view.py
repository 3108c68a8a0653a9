"""View and normal priors on tiny real U-Nets."""

import torch

from dreampolish.priors.estimators.normals import (
    DiffusionNormalPrior,
    normals_from_pictures,
    pictures_from_normals,
)
from dreampolish.priors.view import LatentPatchContext, PoseProjection
from tests.support.tiny_priors import CHANNELS, CountingTower, tiny_space, tiny_unet, tiny_view_prior


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patch_tokens_hold_every_latent_value_once() -> None:
    latents = torch.arange(2 * 4 * 4 * 4, dtype=torch.float32).view(2, 4, 4, 4)
    tokens = LatentPatchContext(2)(torch.zeros(2, 3, 8, 8), latents)
    assert tokens.shape == (2, 4, 16)
    assert torch.equal(tokens.flatten(1).sort().values, latents.flatten(1))
    assert set(tokens[0, 0].tolist()) == set(latents[0, :, :2, :2].flatten().tolist())


def test_the_pose_joins_every_token_by_one_linear_map() -> None:
    projection = PoseProjection(context_dim=16, output_dim=12, tokens=0, context="latent_patches", patch=2)
    tokens, pose = torch.randn(1, 4, 16, generator=_generator(0)), torch.tensor([[0.1, 0.2, 0.3, 0.0]])
    weight, bias = projection.linear.weight, projection.linear.bias
    expected = tokens @ weight[:, :16].T + pose @ weight[:, 16:].T + bias
    assert torch.allclose(projection(tokens, pose), expected, atol=1e-6)


def test_reference_and_pose_both_matter_and_none_is_the_unconditional_domain() -> None:
    prior = tiny_view_prior()
    noisy, timesteps = torch.randn(2, CHANNELS, 4, 4, generator=_generator(1)), torch.tensor([100, 800])
    pose = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.2, 1.0, 0.0, 0.0]])
    reference = prior.condition(torch.rand(1, 3, 8, 8, generator=_generator(2)))
    other = prior.condition(torch.rand(1, 3, 8, 8, generator=_generator(3)))
    found = prior.predict_epsilon(noisy, timesteps, reference, pose)
    assert (found - prior.predict_epsilon(noisy, timesteps, other, pose)).abs().max() > 1e-4
    assert (found - prior.predict_epsilon(noisy, timesteps, reference, pose.flip(0))).abs().max() > 1e-4
    white = prior.condition(torch.ones(1, 3, 8, 8))  # the latent of white is zero, and so are its tokens
    none = prior.predict_epsilon(noisy, timesteps, None, pose)
    assert torch.allclose(none, prior.predict_epsilon(noisy, timesteps, white, pose), atol=1e-6)


def test_views_come_out_one_per_pose_and_repeatably() -> None:
    prior = tiny_view_prior()
    reference = prior.condition(torch.rand(1, 3, 8, 8, generator=_generator(2)))
    pose = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.2, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]])
    one, two = (prior.sample(reference, pose, 3.0, 2, 1.0, _generator(4)) for _ in range(2))
    assert one.shape == (3, 3, 8, 8)
    assert torch.equal(one, two)


def _pose_of_front(n: int) -> torch.Tensor:
    return torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(n, 4)


def test_repainting_from_pure_noise_forgets_the_pictures_and_shares_its_noise() -> None:
    prior = tiny_view_prior()
    reference = prior.condition(torch.rand(1, 3, 8, 8, generator=_generator(2)))
    pictures = torch.rand(2, 3, 8, 8, generator=_generator(5))
    one = prior.repaint(reference, pictures, _pose_of_front(2), 1.0, 2.0, 3, 1.0, _generator(4))
    other = prior.repaint(reference, 1 - pictures, _pose_of_front(2), 1.0, 2.0, 3, 1.0, _generator(4))
    assert torch.equal(one, other)
    torch.testing.assert_close(one[0], one[1])
    assert (one - prior.repaint(reference, pictures, _pose_of_front(2), 1.0, 2.0, 3, 1.0, _generator(9))).abs().max() > 1e-4


def test_repainting_at_little_noise_keeps_the_pictures() -> None:
    prior = tiny_view_prior()
    reference = prior.condition(torch.rand(1, 3, 8, 8, generator=_generator(2)))
    pictures = 0.3 + 0.4 * torch.rand(2, 3, 8, 8, generator=_generator(5))
    kept = prior.decode(prior.encode(pictures))
    changes = [
        float((prior.repaint(reference, pictures, _pose_of_front(2), strength, 1.0, 4, 1.0, _generator(4)) - kept).abs().mean())
        for strength in (0.001, 0.3, 1.0)
    ]
    assert changes[0] < 0.02
    assert changes[0] < changes[1] < changes[2]


def test_normal_pictures_convert_both_ways() -> None:
    normals = torch.nn.functional.normalize(torch.randn(2, 3, 4, 4, generator=_generator(0)), dim=1)
    mask = torch.ones(2, 1, 4, 4)
    assert torch.allclose(normals_from_pictures(pictures_from_normals(normals, mask)), normals, atol=1e-5)
    assert torch.equal(pictures_from_normals(normals, 0 * mask), torch.ones(2, 3, 4, 4))
    grey = normals_from_pictures(torch.full((1, 3, 1, 1), 0.5))
    assert grey.flatten().tolist() == [0, 0, 1]


def test_estimates_are_unit_normals_at_the_pictures_size_that_depend_on_the_picture() -> None:
    prior = DiffusionNormalPrior(tiny_space(), tiny_unet(2 * CHANNELS, False), CountingTower().embed([""]))
    images = torch.rand(2, 3, 8, 8, generator=_generator(1))
    found = prior.estimate(images, 2, _generator(0))
    assert found.shape == (2, 3, 8, 8)
    assert torch.allclose(found.norm(dim=1), torch.ones(2, 8, 8), atol=1e-5)
    assert not torch.allclose(found, prior.estimate(images.flip(-1), 2, _generator(0)))
    assert prior.estimate(torch.rand(1, 3, 16, 16, generator=_generator(2)), 1, _generator(0)).shape == (1, 3, 16, 16)
