"""Making of the patch autoencoder: the basis in one fit, the residual decoder by gradient steps on the encoder's frozen latents."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.optim.fit import Term
from dreampolish.priors.autoencoder import (
    PatchAutoencoder,
    foreground_patches,
    patch_basis,
    patches_from_pictures,
)

PictureSource = Callable[[int, torch.Generator], Float[Tensor, "n 3 h w"]]
"""(how many, generator) -> pictures in [0, 1]; renders and normal pictures mixed."""

FOREGROUND_THRESHOLD = 0.04
"""Distance from white from which a patch counts for the basis. [choice]"""
BASIS_BATCH = 32
"""Pictures drawn at once for the basis."""


def fit_basis(
    autoencoder: PatchAutoencoder, draw: PictureSource, pictures: int, whitening: float, generator: torch.Generator
) -> None:
    """Install the patch basis of `pictures` drawn pictures; patches that are all but white do not count."""
    batches = []
    for _ in range(0, pictures, BASIS_BATCH):
        patches = patches_from_pictures(draw(BASIS_BATCH, generator) * 2 - 1, autoencoder.config.patch_size)
        batches.append(foreground_patches(patches, threshold=FOREGROUND_THRESHOLD))
    basis, scales = patch_basis(torch.cat(batches), autoencoder.config.latent_channels, whitening)
    autoencoder.set_basis(basis, scales)


class ReconstructionLoss:
    """Squared error of the decoded picture; latents get a little noise, so that sampled ones decode well too.

    noise: standard deviation added to latents, whose foreground has a mean square of 1.
    """

    def __init__(
        self, autoencoder: PatchAutoencoder, draw: PictureSource, batch: int, noise: float, generator: torch.Generator
    ) -> None:
        self._autoencoder, self._draw, self._batch, self._noise, self._generator = autoencoder, draw, batch, noise, generator

    def __call__(self, step: int) -> dict[str, Term]:
        """The error of one batch, over pictures in [-1, 1]."""
        pictures = self._draw(self._batch, self._generator) * 2 - 1
        with torch.no_grad():
            latents = self._autoencoder.encode(pictures).latent_dist.mode()
        latents = latents + self._noise * torch.randn(latents.shape, generator=self._generator)
        decoded = self._autoencoder.decode(latents).sample
        return {"reconstruction": Term((decoded - pictures).square().mean(), 1.0)}


def trained_parameters(autoencoder: PatchAutoencoder) -> list[torch.nn.Parameter]:
    """What the gradient steps may change: the residual and the linear decoder, never the encoder."""
    return [*autoencoder.residual.parameters(), *autoencoder.decoder.parameters()]
