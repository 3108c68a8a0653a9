"""The latent space and noise schedule that text, view and normal priors share (protocols.LatentPrior)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dreampolish.priors.sampling import NoiseSchedule, epsilon_from_flow, epsilon_from_v, v_from_epsilon, v_from_flow


def pixels_per_latent(autoencoder: Any) -> int:
    """By how much a latent is smaller than its picture: AutoencoderKL halves the picture between its blocks; the patch autoencoder
    divides it by its patch."""
    config = autoencoder.config
    return int(config.patch_size if "patch_size" in config else 2 ** (len(config.block_out_channels) - 1))


@dataclass(frozen=True)
class MemoryUse:
    """How a prior spends a GPU's memory. Results differ by rounding alone.

    views_at_once: pictures that are distilled, or that the adapter learns from, at once; each part's graph is gone before the next
    begins. None: all, in one graph. rows_at_once: pictures that the networks see at once where no graph is kept; None: all.
    checkpoint_encoder, checkpoint_adapter: compute the inner layers again on the way back in place of keeping them. towers_on_cpu:
    text and picture towers go to the CPU when they have read.
    """

    views_at_once: int | None = None
    rows_at_once: int | None = None
    checkpoint_encoder: bool = False
    checkpoint_adapter: bool = False
    towers_on_cpu: bool = False


ALL_AT_ONCE = MemoryUse()


def can_compute_again(network: Any) -> bool:
    """Whether a network of diffusers can drop its inner layers' results and compute them again; the embedded autoencoder has none."""
    return bool(getattr(network, "_supports_gradient_checkpointing", 0))


def overflows(config: Mapping[str, Any]) -> bool:
    """Whether an autoencoder's config says that halves overflow, as SDXL's does. diffusers fills it in as true where a folder says
    nothing, as those of Stable Diffusion 1 and 2 do: that does not count."""
    return bool(config.get("force_upcast")) and "force_upcast" not in config.get("_use_default_values", ())


class LatentSpace:
    """An autoencoder with a scale, and a schedule.

    autoencoder: anything with AutoencoderKL's encode, decode and config. image_size: pixels of a side that the prior works at.
    """

    def __init__(self, autoencoder: Any, schedule: NoiseSchedule, image_size: int) -> None:
        self.autoencoder, self.schedule, self.image_size = autoencoder, schedule, image_size
        self.alphas_cumprod = schedule.alphas_cumprod
        self._adapter_format: torch.dtype | None = None
        self.memory = ALL_AT_ONCE
        self._scale = float(autoencoder.config.scaling_factor)
        self._shift = float(autoencoder.config.get("shift_factor") or 0.0)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        side = self.image_size // pixels_per_latent(self.autoencoder)
        return self.autoencoder.config.latent_channels, side, side

    def networks(self) -> tuple[nn.Module, ...]:
        """The score networks of the prior on top; a bare space has none."""
        return ()

    def to(self, device: torch.device | str) -> None:
        """Move networks, autoencoder and schedule."""
        for network in (*self.networks(), self.autoencoder):
            network.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)

    def compute_in(
        self, dtype: torch.dtype, *, autoencoder: torch.dtype | None = None, adapter: torch.dtype | None = None
    ) -> None:
        """Let network and autoencoder compute in other number formats. What goes in and comes out keeps its own, float32.

        autoencoder: None: as the network, but float32 in place of float16 where its config says that halves overflow (SDXL's first
        VAE). adapter: of the network under a LoRA that is added later; None: as the network.
        """
        if autoencoder is None:
            autoencoder = torch.float32 if dtype == torch.float16 and overflows(self.autoencoder.config) else dtype
        self.autoencoder.to(autoencoder)
        for network in self.networks():
            network.to(dtype)
        self._adapter_format = adapter

    def spend(self, memory: MemoryUse) -> None:
        """Set how memory is used. An autoencoder without inner layers to compute again stays as it is."""
        self.memory = memory
        if memory.checkpoint_encoder and can_compute_again(self.autoencoder):
            self.autoencoder.enable_gradient_checkpointing()

    @property
    def views_at_once(self) -> int | None:
        """Pictures whose graph through the autoencoder is kept at once; None: all."""
        return self.memory.views_at_once

    def by_rows(self, n: int, output: Callable[[slice], Tensor], pictures_a_row: int = 1) -> Tensor:
        """What `output` gives for n rows, some at a time where memory is scarce and no graph is kept."""
        scarce = None if torch.is_grad_enabled() else self.memory.rows_at_once
        at_once = n if scarce is None else max(scarce // pictures_a_row, 1)
        parts = [output(slice(first, first + at_once)) for first in range(0, n, max(at_once, 1))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c m n"]:
        """Scaled latents of pictures in [0, 1]; differentiable. Other sizes than image_size are resized first."""
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)

        def latents(rows: slice) -> Tensor:
            found: Tensor = self.autoencoder.encode((images[rows] * 2 - 1).to(self.autoencoder.dtype)).latent_dist.mode()
            return found

        return (self.by_rows(len(images), latents).to(images.dtype) - self._shift) * self._scale

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of scaled latents, clamped to [0, 1]; no gradient."""

        def pictures(rows: slice) -> Tensor:
            whole = (latents[rows] / self._scale + self._shift).to(self.autoencoder.dtype)
            found: Tensor = self.autoencoder.decode(whole).sample
            return found

        return ((self.by_rows(len(latents), pictures).to(latents.dtype) + 1) / 2).clamp(0, 1)

    def epsilon_from_output(
        self, output: Float[Tensor, "b c m n"], noisy: Float[Tensor, "b c m n"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c m n"]:
        """A network's output as eps, whatever it predicts."""
        if self.schedule.prediction_type == "epsilon":
            return output
        if self.schedule.prediction_type == "flow":
            return epsilon_from_flow(output, noisy, self.alphas_cumprod, timesteps)
        return epsilon_from_v(output, noisy, self.alphas_cumprod, timesteps)

    def v_from_output(
        self, output: Float[Tensor, "b c m n"], noisy: Float[Tensor, "b c m n"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c m n"]:
        """A network's output as v, whatever it predicts."""
        if self.schedule.prediction_type == "v_prediction":
            return output
        if self.schedule.prediction_type == "flow":
            return v_from_flow(output, noisy, self.alphas_cumprod, timesteps)
        return v_from_epsilon(output, noisy, self.alphas_cumprod, timesteps)

    def draw_noise(self, n: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Pure noise latents for n pictures, on the schedule's device."""
        noise = torch.randn(n, *self.latent_shape, generator=generator, device=generator.device)
        return noise.to(self.alphas_cumprod.device)
