"""The home autoencoder: a linear patch basis around white, its transpose, and a small learned correction.

Encoding is ONE strided convolution, so that score distillation pays nothing for reaching the renderer; decoding adds a
residual that removes block edges. The interface (encode, decode, config) is that of diffusers' AutoencoderKL, pictures in
[-1, 1]; a white picture has the latent 0.

Notation: p patch side, D = 3 p^2 values of a patch, C latent channels, B basis rows of unit length, s_i channel scales.
"""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class PointDistribution:
    """A latent without spread, where AutoencoderKL has a Gaussian."""

    mean: Float[Tensor, "b c m n"]

    def mode(self) -> Float[Tensor, "b c m n"]:
        """The latent."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Float[Tensor, "b c m n"]:
        """The latent; nothing is drawn."""
        return self.mean


@dataclass(frozen=True)
class EncoderOutput:
    """What `encode` returns, named as in diffusers."""

    latent_dist: PointDistribution


@dataclass(frozen=True)
class DecoderOutput:
    """What `decode` returns, named as in diffusers."""

    sample: Float[Tensor, "b 3 h w"]


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Linear patch encoder with a linear decoder and a learned residual.

    latent_channels: C. patch_size: p, pixels; pictures' sides must be multiples of it. hidden_channels: width of the
    residual decoder. scaling_factor: what LatentPrior multiplies latents by (AutoencoderKL's meaning).
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 24,
        patch_size: int = 8,
        hidden_channels: int = 96,
        sample_size: int = 128,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, latent_channels, patch_size, stride=patch_size, bias=False)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch_size, stride=patch_size, bias=False)
        width = hidden_channels
        self.residual = nn.Sequential(
            nn.Conv2d(latent_channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 3 * patch_size**2, 3, padding=1),
            nn.PixelShuffle(patch_size),
        )
        last = self.residual[-2]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def encode(self, pictures: Float[Tensor, "b 3 h w"]) -> EncoderOutput:
        """Latents of pictures in [-1, 1]; linear, differentiable."""
        return EncoderOutput(PointDistribution(self.encoder(pictures - 1)))

    def decode(self, latents: Float[Tensor, "b c m n"]) -> DecoderOutput:
        """Pictures, about [-1, 1], unclamped."""
        return DecoderOutput(self.decoder(latents) + self.residual(latents) + 1)

    def linear_decode(self, latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of the linear part alone: the best that the basis does without learning."""
        return self.decoder(latents) + 1

    @torch.no_grad()
    def channel_weights(self, emphasis: float) -> Float[Tensor, " c"]:
        """Weights of a squared error of latents by channel, mean 1: what an error of the channel costs in the picture's squares, to the
        power `emphasis`. 0: all alike, so that fine detail outweighs shades; 1: the squared error of the picture itself."""
        costs = self.decoder.weight.flatten(1).square().sum(dim=1) ** emphasis
        return costs / costs.mean()

    @torch.no_grad()
    def set_basis(self, basis: Float[Tensor, "c d"], scales: Float[Tensor, " c"]) -> None:
        """Install orthonormal basis rows; channel i of a latent is scales_i times the coefficient on row i."""
        shape = (len(basis), 3, self.config.patch_size, self.config.patch_size)
        self.encoder.weight.copy_((basis * scales[:, None]).view(shape))
        self.decoder.weight.copy_((basis / scales[:, None]).view(shape))


def patches_from_pictures(pictures: Float[Tensor, "b 3 h w"], patch_size: int) -> Float[Tensor, "n d"]:
    """All non-overlapping patches of pictures in [-1, 1], as rows around white, in a convolution's weight order."""
    columns = functional.unfold(pictures - 1, patch_size, stride=patch_size)
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def foreground_patches(patches: Float[Tensor, "n d"], threshold: float) -> Float[Tensor, "k d"]:
    """The patches that differ from white by more than `threshold` somewhere."""
    return patches[patches.abs().amax(dim=1) > threshold]


def patch_basis(
    patches: Float[Tensor, "n d"], channels: int, whitening: float
) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    """The `channels` strongest directions of patches around white, and channel scales that whiten partly.

    The second moment around white, not the covariance, is diagonalised: white must stay the latent 0. whitening: 0 keeps
    the standard deviations d_i, 1 makes them equal; in between scales_i ~ d_i^-whitening, normalised so that the
    mean square of a foreground latent is 1.
    """
    moment = patches.double().T @ patches.double() / len(patches)
    values, vectors = torch.linalg.eigh(moment)
    values, vectors = values.flip(0)[:channels], vectors.flip(1)[:, :channels]
    # The sign of an eigenvector is arbitrary: fix it, so that two fits agree.
    signs = torch.sign(vectors[vectors.abs().argmax(dim=0), torch.arange(channels)])
    deviations = values.clamp_min(1e-12).sqrt()
    scales = deviations**-whitening
    scales = scales / (deviations * scales).square().mean().sqrt()
    return (vectors * signs).T.float(), scales.float()
