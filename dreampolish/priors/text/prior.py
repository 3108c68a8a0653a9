"""The text prior: text to image by latent diffusion (protocols.TextPrior), small or large by the folder that is opened."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import Predictor, Renewal, guided, repainted, sample_ddim
from dreampolish.priors.text.lora import LoraDomain
from dreampolish.priors.text.networks import ScoreNetwork
from dreampolish.priors.text.towers import PromptEmbedder


class DiffusionTextPrior(LatentSpace):
    """A network conditioned on token states, in an autoencoder's latent space."""

    def __init__(self, space: LatentSpace, network: ScoreNetwork, tower: PromptEmbedder) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.network, self.tower = network, tower
        self._lora: LoraDomain | None = None

    def networks(self) -> tuple[nn.Module, ...]:
        """The score network."""
        return (self.network.module,)

    def to(self, device: torch.device | str) -> None:
        """Move every component; towers that memory is scarce for come later, to read, and go again."""
        super().to(device)
        if not self.memory.towers_on_cpu:
            self.tower.to(device)

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Token states of prompts; the empty string is the unconditional domain."""
        if not self.memory.towers_on_cpu:
            return self.tower.embed(prompts)
        self.tower.to(self.alphas_cumprod.device)
        states = self.tower.embed(prompts)
        self.tower.to("cpu")
        return states

    @torch.no_grad()
    def predict_epsilon(
        self, noisy: Float[Tensor, "b c m n"], timesteps: Int[Tensor, " b"], text: TextEmbedding
    ) -> Float[Tensor, "b c m n"]:
        """e_y, e_0 or e_n, by the text that is given; no gradient. An adapter, where one was added, is switched off."""
        return self.epsilon_from_output(self._base_output(noisy, timesteps, text), noisy, timesteps)

    def _base_output(self, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
        if self._lora is not None:
            self._lora.switch_off()
        return self.by_rows(
            len(noisy),
            lambda rows: self.network.output(self.network.module, noisy[rows], timesteps[rows], text.rows(rows)),
        )

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
        return self.decode(
            repainted(
                predict_v=self._guided_v(text, negative, guidance_scale),
                latents=self.encode(images),
                alphas_cumprod=self.alphas_cumprod,
                strength=strength,
                steps=steps,
                renewed=renewed,
                generator=generator,
            )
        )

    def _guided_v(self, text: TextEmbedding, negative: TextEmbedding, guidance_scale: float) -> Predictor:
        """v under classifier-free guidance, in one network call."""
        joint = TextEmbedding.joined([text, negative])

        def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
            if guidance_scale == 1:
                return self.v_from_output(self._base_output(noisy, timesteps, text), noisy, timesteps)
            twice, at = torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps])
            v = self.v_from_output(self._base_output(twice, at, joint), twice, at)
            conditional, unconditional = v.chunk(2)
            return guided(conditional, unconditional, guidance_scale)

        return predict_v

    def add_lora(self, rank: int, generator: torch.Generator) -> LoraDomain:
        """The variational domain: a LoRA adapter with a camera embedding on the frozen network. One at a time."""
        if self._lora is not None:
            self._lora.remove()
        self._lora = LoraDomain(
            network=self.network, space=self, rank=rank, generator=generator, number_format=self._adapter_format
        )
        return self._lora
