"""The patch autoencoder: a complete basis loses nothing, white is zero, encoding is linear and differentiable."""

from pathlib import Path

import torch

from dreampolish.priors.autoencoder import (
    PatchAutoencoder,
    foreground_patches,
    patch_basis,
    patches_from_pictures,
)
from dreampolish.training.autoencoder import ReconstructionLoss, fit_basis, trained_parameters
from dreampolish.training.folders import write_component


def _pictures(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=generator)


def _fitted(channels: int, whitening: float) -> PatchAutoencoder:
    autoencoder = PatchAutoencoder(latent_channels=channels, patch_size=2, hidden_channels=8, sample_size=8)
    fit_basis(autoencoder, _pictures, 64, whitening, torch.Generator().manual_seed(0))
    return autoencoder


def test_a_complete_basis_reconstructs_exactly_whatever_the_whitening() -> None:
    pictures = _pictures(3, torch.Generator().manual_seed(1)) * 2 - 1
    for whitening in (0.0, 0.5, 1.0):
        autoencoder = _fitted(12, whitening)
        latents = autoencoder.encode(pictures).latent_dist.mode()
        assert torch.allclose(autoencoder.linear_decode(latents), pictures, atol=1e-4)
        assert torch.allclose(autoencoder.decode(latents).sample, pictures, atol=1e-4)  # the residual starts at zero


def test_white_is_the_latent_zero() -> None:
    autoencoder = _fitted(4, 0.5)
    assert torch.equal(autoencoder.encode(torch.ones(1, 3, 8, 8)).latent_dist.mode(), torch.zeros(1, 4, 4, 4))


def test_whitened_channels_have_equal_mean_squares_of_one() -> None:
    patches = torch.randn(4000, 12, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 13)
    basis, scales = patch_basis(patches, 5, 1.0)
    assert torch.allclose(basis @ basis.T, torch.eye(5), atol=1e-5)
    assert torch.allclose((patches @ basis.T * scales).square().mean(dim=0), torch.ones(5), atol=1e-3)


def test_the_basis_is_the_best_one_of_its_size() -> None:
    """The error of the first k directions is the sum of the remaining eigenvalues (Eckart-Young)."""
    patches = torch.randn(3000, 12, generator=torch.Generator().manual_seed(3)) * torch.arange(1, 13)
    basis, _ = patch_basis(patches, 4, 0.0)
    error = (patches - patches @ basis.T @ basis).square().sum(dim=1).mean()
    values = torch.linalg.eigvalsh(patches.T @ patches / len(patches))
    assert torch.allclose(error, values[:8].sum(), rtol=1e-4)


def test_foreground_leaves_white_patches_out() -> None:
    pictures = torch.ones(1, 3, 4, 4)
    pictures[0, 0, 0, 0] = 0.0
    patches = foreground_patches(patches_from_pictures(pictures, 2), 0.04)
    assert patches.shape == (1, 12)
    assert patches.abs().sum() == 1


def test_the_encoder_passes_gradients_that_agree_with_finite_differences() -> None:
    autoencoder = _fitted(4, 0.5).double()
    picture = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: autoencoder.encode(x).latent_dist.mode().square(), (picture,))


def test_it_survives_a_round_trip_through_a_folder(tmp_path: Path) -> None:
    autoencoder = _fitted(4, 0.5)
    write_component(tmp_path, autoencoder)
    again = PatchAutoencoder.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False).float()
    assert dict(again.config)["latent_channels"] == 4
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name


def test_training_improves_the_decoder_and_leaves_the_encoder_alone() -> None:
    autoencoder = _fitted(4, 0.5)

    def stripes(n: int, generator: torch.Generator) -> torch.Tensor:
        level = torch.rand(n, 1, 1, 1, generator=generator)
        return (level * torch.tensor([0.2, 1.0]).repeat(4).view(1, 1, 1, 8)).expand(n, 3, 8, 8)

    loss = ReconstructionLoss(autoencoder, stripes, 8, 0.0, torch.Generator().manual_seed(5))
    encoder = autoencoder.encoder.weight.detach().clone()
    optimizer = torch.optim.Adam(trained_parameters(autoencoder), lr=3e-3)
    first = last = 0.0
    for step in range(60):
        term = loss(step)["reconstruction"].loss
        optimizer.zero_grad()
        term.backward()
        optimizer.step()
        first, last = (float(term) if step == 0 else first), float(term)
    assert last < first / 4
    assert torch.equal(autoencoder.encoder.weight, encoder)


def test_channel_weights_are_what_an_error_costs_in_the_picture() -> None:
    autoencoder = _fitted(6, 0.5)
    generator = torch.Generator().manual_seed(2)
    error = torch.randn(64, 6, 4, 4, generator=generator)
    squares = (autoencoder.linear_decode(error) - 1).square().sum(dim=(1, 2, 3)).mean()
    weights = autoencoder.channel_weights(1.0)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    weighted = (error.square() * weights[:, None, None]).sum(dim=(1, 2, 3)).mean()
    scale = autoencoder.decoder.weight.flatten(1).square().sum(dim=1).mean()
    torch.testing.assert_close(squares, weighted * scale)
    assert torch.equal(autoencoder.channel_weights(0.0), torch.ones(6))
    assert (autoencoder.channel_weights(1.0).diff() <= 1e-6).all()
