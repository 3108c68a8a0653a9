"""Score networks of text priors under one call, whatever their family asks for beside latents, timesteps and token states.

Latents are in the notation of protocols.py, z_t = alpha_t z + sigma_t eps with alpha_t^2 + sigma_t^2 = 1. Networks of rectified flow see
x_s = (1 - s) z + s eps in its place, which is z_t / (alpha_t + sigma_t) at s = sigma_t / (alpha_t + sigma_t): the same picture, scaled.
What they predict is the velocity u = eps - z (source: arXiv:2403.03206, Eq. 13).
"""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dreampolish.priors.folders.loading import unet_output
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import NoiseSchedule, alpha_sigma

UNET_ATTENTION: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
"""A U-Net's layers that get an adapter (source: threestudio: all attention projections)."""
TRANSFORMER_ATTENTION: tuple[str, ...] = (*UNET_ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Those of a transformer that attends to pictures and words together: the words' projections as well."""

FLUX_GUIDANCE = 3.5
"""Scale that FLUX.1-dev is told, whose network has guidance built in (source: the default of diffusers' FluxPipeline)."""
FLOW_TIMES = 1000
"""By how much the networks of rectified flow want the noise share s multiplied (source: diffusers' FlowMatchEulerDiscreteScheduler)."""


@runtime_checkable
class ScoreNetwork(Protocol):
    """A network that predicts what its schedule says (NoiseSchedule.prediction_type)."""

    module: Any
    """The network of diffusers."""
    adapted: tuple[str, ...]
    """Names of the layers that get an adapter."""

    def output(
        self, module: Any, noisy: Float[Tensor, "b c m n"], timesteps: Int[Tensor, " b"], text: TextEmbedding
    ) -> Float[Tensor, "b c m n"]:
        """The prediction, in the latents' number format. module: this network, or a copy of it in another format."""
        ...

    def time_embedding(self, module: Any) -> nn.Module:
        """The part whose output says the time; a camera is added to it."""
        ...

    def time_width(self) -> int:
        """The width of that output."""
        ...


class UnetNetwork:
    """Stable Diffusion 1.x and 2.x, and the embedded priors."""

    adapted = UNET_ATTENTION

    def __init__(self, module: Any) -> None:
        self.module = module

    def output(self, module: Any, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
        """Epsilon or v."""
        return unet_output(module, noisy, timesteps, text)

    def time_embedding(self, module: Any) -> nn.Module:
        """The U-Net's two layers behind the timestep's sines."""
        embedding: nn.Module = module.time_embedding
        return embedding

    def time_width(self) -> int:
        """Features of the time embedding."""
        return int(self.module.time_embedding.linear_2.out_features)


class SdxlNetwork(UnetNetwork):
    """SDXL: the pooled text and the picture's sizes are conditions beside the token states.

    image_size: told as original and wanted size, pixels; nothing is cropped (source: arXiv:2307.01952, Sec. 2.2).
    """

    def __init__(self, module: Any, image_size: int) -> None:
        super().__init__(module)
        self._sizes = (image_size, image_size, 0, 0, image_size, image_size)

    def output(self, module: Any, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
        """Epsilon."""
        sizes = torch.tensor(self._sizes, dtype=module.dtype, device=noisy.device).expand(len(noisy), -1)
        found = module(
            noisy.to(module.dtype),
            timesteps,
            encoder_hidden_states=text.states.to(module.dtype),
            added_cond_kwargs={"text_embeds": text.pooled_states().to(module.dtype), "time_ids": sizes},
        )
        return found.sample.to(noisy.dtype)


class FlowTransformer:
    """Stable Diffusion 3 and 3.5: a transformer over pictures and words, trained on rectified flow."""

    adapted = TRANSFORMER_ATTENTION

    def __init__(self, module: Any, schedule: NoiseSchedule) -> None:
        self.module, self._alphas_cumprod = module, schedule.alphas_cumprod

    def output(self, module: Any, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
        """The velocity u = eps - z."""
        alpha, sigma = alpha_sigma(self._alphas_cumprod.to(noisy.device), timesteps)
        share = (sigma / (alpha + sigma)).flatten()
        mixed = (noisy / (alpha + sigma)).to(module.dtype)
        return self.velocity(module, mixed, share, text).to(noisy.dtype)

    def velocity(self, module: Any, mixed: Tensor, share: Tensor, text: TextEmbedding) -> Tensor:
        """u of x_s (B, C, h, w) at noise shares s (B,) in [0, 1]."""
        found: Tensor = module(
            hidden_states=mixed,
            encoder_hidden_states=text.states.to(module.dtype),
            pooled_projections=text.pooled_states().to(module.dtype),
            timestep=share * FLOW_TIMES,
        ).sample
        return found

    def time_embedding(self, module: Any) -> nn.Module:
        """What joins time and pooled text."""
        embedding: nn.Module = module.time_text_embed
        return embedding

    def time_width(self) -> int:
        """Features of the joined embedding."""
        return int(self.module.time_text_embed.timestep_embedder.linear_2.out_features)


class FluxTransformer(FlowTransformer):
    """FLUX.1: latents in patches of 2 x 2 as tokens, places of tokens told, guidance built in where the network has it (-dev)."""

    def velocity(self, module: Any, mixed: Tensor, share: Tensor, text: TextEmbedding) -> Tensor:
        """u of x_s, packed and unpacked again (source: diffusers' FluxPipeline)."""
        batch, _, height, width = mixed.shape
        guidance = mixed.new_full((batch,), FLUX_GUIDANCE).float() if module.config.guidance_embeds else None
        found = module(
            hidden_states=packed(mixed),
            encoder_hidden_states=text.states.to(module.dtype),
            pooled_projections=text.pooled_states().to(module.dtype),
            timestep=share,  # this network multiplies by FLOW_TIMES itself
            img_ids=token_places(height // 2, width // 2).to(mixed),
            txt_ids=mixed.new_zeros(text.states.shape[1], 3),
            guidance=guidance,
        ).sample
        return unpacked(found, (height, width))


def packed(latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b t d"]:
    """Tokens of 2 x 2 latents, row by row; d = 4 c."""
    return functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: Float[Tensor, "b t d"], size: tuple[int, int]) -> Float[Tensor, "b c m n"]:
    """The inverse of `packed`; size: (h, w) of the latents."""
    patches = tokens.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))
    return functional.pixel_shuffle(patches, 2)


def token_places(rows: int, columns: int) -> Float[Tensor, "t 3"]:
    """(0, row, column) of each token of a picture, row by row."""
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    return torch.cat([torch.zeros(len(places), 1), places], dim=1)
