"""The text prior: text to image by latent diffusion (protocols.TextPrior), small or large by the folder that is opened."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.latents import LatentSpace, pixels_per_latent
from dreampolish.priors.loading import load_autoencoder, load_schedule, load_text_encoder, load_unet, unet_output
from dreampolish.priors.lora import LoraDomain
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import Predictor, Renewal, denoise_ddim, guided, noisy_latents, sample_ddim, trailing_timesteps


@runtime_checkable
class PromptEmbedder(Protocol):
    """Whatever turns prompts into token states."""

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Token states and mask of prompts."""
        ...

    def to(self, device: torch.device | str) -> None:
        """Move to a device."""
        ...


class TextTower:
    """Tokenizer and frozen encoder: prompts to token states."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self.tokenizer, self.encoder = tokenizer, encoder
        # Stable Diffusion's U-Nets were trained on all 77 positions of CLIP, padding included.
        self._fixed_length = str(encoder.config.model_type).startswith("clip")

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Last hidden states (B, L, D); L is the longest prompt's, or the tower's fixed length. Too long prompts are cut."""
        return self._embedded(prompts, fixed_length=self._fixed_length)

    def embed_unpadded(self, prompts: Sequence[str]) -> TextEmbedding:
        """The same without padding to the tower's length, as Marigold is conditioned: the empty prompt has two tokens."""
        return self._embedded(prompts, fixed_length=False)

    @torch.no_grad()
    def _embedded(self, prompts: Sequence[str], *, fixed_length: bool) -> TextEmbedding:
        limit = min(int(self.tokenizer.model_max_length), int(self.encoder.config.max_position_embeddings))
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length" if fixed_length else "longest",
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        ).to(next(self.encoder.parameters()).device)
        mask = tokens["attention_mask"].bool()
        if fixed_length:
            return TextEmbedding(self.encoder(input_ids=tokens["input_ids"]).last_hidden_state, torch.ones_like(mask))
        return TextEmbedding(self.encoder(**tokens).last_hidden_state, mask)

    def to(self, device: torch.device | str) -> None:
        """Move the encoder."""
        self.encoder.to(device)


class DiffusionTextPrior(LatentSpace):
    """A U-Net conditioned on a text tower's token states, in an autoencoder's latent space."""

    def __init__(self, space: LatentSpace, unet: UNet2DConditionModel, tower: PromptEmbedder) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.unet, self.tower = unet, tower
        self._lora: LoraDomain | None = None

    def to(self, device: torch.device | str) -> None:
        """Move every component."""
        super().to(device)
        self.unet.to(device)
        self.tower.to(device)

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Token states of prompts; the empty string is the unconditional domain."""
        return self.tower.embed(prompts)

    @torch.no_grad()
    def predict_epsilon(
        self, noisy: Float[Tensor, "b c m n"], timesteps: Int[Tensor, " b"], text: TextEmbedding
    ) -> Float[Tensor, "b c m n"]:
        """e_y, e_0 or e_n, by the text that is given; no gradient. An adapter, where one was added, is switched off."""
        return self.epsilon_from_output(self._base_output(noisy, timesteps, text), noisy, timesteps)

    def _base_output(self, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
        if self._lora is not None:
            self._lora.switch_off()
        return unet_output(self.unet, noisy, timesteps, text)

    @torch.no_grad()
    def sample(
        self,
        text: TextEmbedding,
        negative: TextEmbedding,
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures by DDIM with classifier-free guidance, one per row of `text`; `negative` has one row or as many. renewed: DDIM's
        eta, 0 deterministic, 1 ancestral."""
        n = len(text.states)
        negative = negative.expand(n) if len(negative.states) == 1 else negative
        renewal = Renewal(renewed, lambda: self.draw_noise(n, generator))
        return self.decode(
            sample_ddim(
                predict_v=self._guided_v(text, negative, guidance_scale),
                noise=self.draw_noise(n, generator),
                alphas_cumprod=self.alphas_cumprod,
                steps=steps,
                renewal=renewal,
            )
        )

    @torch.no_grad()
    def repaint(
        self,
        images: Float[Tensor, "b 3 h w"],
        text: TextEmbedding,
        negative: TextEmbedding,
        strength: float,
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 h w"]:
        """`images` noised up to the fraction `strength` of the timesteps, then denoised as `sample` does; at 1 they no longer matter.

        source of the idea: SDEdit (arXiv:2108.01073).
        """
        n = len(images)
        negative = negative.expand(n) if len(negative.states) == 1 else negative
        n_noisy = max(1, round(strength * len(self.alphas_cumprod)))
        timesteps = trailing_timesteps(n_noisy, min(steps, n_noisy)).to(self.alphas_cumprod.device)
        latents, noise = self.encode(images), self.draw_noise(n, generator)
        noisy = noise if strength >= 1 else noisy_latents(latents, noise, self.alphas_cumprod, timesteps[:1].expand(n))
        return self.decode(
            denoise_ddim(
                predict_v=self._guided_v(text, negative, guidance_scale),
                noisy=noisy,
                alphas_cumprod=self.alphas_cumprod,
                timesteps=timesteps,
                renewal=Renewal(renewed, lambda: self.draw_noise(n, generator)),
            )
        )

    def _guided_v(self, text: TextEmbedding, negative: TextEmbedding, guidance_scale: float) -> Predictor:
        """v under classifier-free guidance, in one network call."""
        joint = text.followed_by(negative)

        def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
            if guidance_scale == 1:
                return self.v_from_output(self._base_output(noisy, timesteps, text), noisy, timesteps)
            twice, at = torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps])
            v = self.v_from_output(self._base_output(twice, at, joint), twice, at)
            return guided(*v.chunk(2), guidance_scale)

        return predict_v

    def add_lora(self, rank: int, generator: torch.Generator) -> LoraDomain:
        """The variational domain: a LoRA adapter with a camera embedding on the frozen network. One at a time."""
        if self._lora is not None:
            self._lora.remove()
        self._lora = LoraDomain(unet=self.unet, space=self, rank=rank, generator=generator, number_format=self._adapter_format)
        return self._lora


def load_text_prior(source: PriorSource) -> DiffusionTextPrior:
    """Open a text prior: the embedded one, or a Stable-Diffusion-class folder or repository."""
    autoencoder, unet = load_autoencoder(source), load_unet(source)
    size = int(autoencoder.config.sample_size)
    if "patch_size" not in autoencoder.config:  # Stable Diffusion keeps the latent side in the U-Net
        size = int(unet.config.sample_size) * pixels_per_latent(autoencoder)
    space = LatentSpace(autoencoder, load_schedule(source), size)
    return DiffusionTextPrior(space, unet, TextTower(*load_text_encoder(source)))
