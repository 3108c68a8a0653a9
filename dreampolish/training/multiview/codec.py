"""The shipped patch autoencoder and the cosine schedule in plain torch, for machines without diffusers (priors.patch_autoencoder)."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from dreampolish.priors.multiview.prior import PictureSpace


def cosine_alphas_cumprod(steps: int) -> Float[Tensor, " t"]:
    """abar_t of diffusers' squaredcos_cap_v2 schedule."""
    level = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
    betas = torch.tensor([min(1 - level[t + 1] / level[t], 0.999) for t in range(steps)], dtype=torch.float32)
    return torch.cumprod(1 - betas, dim=0)


class PatchCodec(nn.Module, PictureSpace):
    """Encodes and decodes pictures in [0, 1] as priors.patch_autoencoder.PatchAutoencoder does, its scaling factor being 1."""

    alphas_cumprod: Tensor

    def __init__(self, latent_channels: int, patch: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, latent_channels, patch, stride=patch, bias=False)
        self.decoder = nn.ConvTranspose2d(latent_channels, 3, patch, stride=patch, bias=False)
        layers: list[nn.Module] = []
        for index, width in enumerate((hidden, hidden, hidden, 3 * patch**2)):
            layers += [nn.Conv2d(latent_channels if index == 0 else hidden, width, 3, padding=1), nn.SiLU()]
        self.residual = nn.Sequential(*layers[:-1], nn.PixelShuffle(patch))
        self.register_buffer("alphas_cumprod", cosine_alphas_cumprod(1000), persistent=False)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c m n"]:
        """Latents; white is 0."""
        return self.encoder(images * 2 - 2)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures, clamped."""
        return ((self.decoder(latents) + self.residual(latents) + 2) / 2).clamp(0, 1)

    @torch.no_grad()
    def channel_weights(self, emphasis: float) -> Float[Tensor, " c"]:
        """Weights of a squared error of latents by channel (PatchAutoencoder.channel_weights)."""
        costs = self.decoder.weight.flatten(1).square().sum(dim=1) ** emphasis
        return costs / costs.mean()


def load_codec(weights: Path) -> PatchCodec:
    """The codec of an autoencoder's safetensors."""
    state = {name: value.float() for name, value in load_file(weights).items()}
    channels, _, patch, _ = state["encoder.weight"].shape
    codec = PatchCodec(channels, patch, len(state["residual.0.bias"]))
    codec.load_state_dict(state)
    return codec.eval().requires_grad_(False)
