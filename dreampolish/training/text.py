"""Training of the text prior: pictures and captions, a tenth of the captions empty."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.folders.loading import unet_output
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.text.towers import PromptEmbedder
from dreampolish.training.diffusion import Denoiser, DenoiserBatch

CaptionedSource = Callable[[int, torch.Generator], tuple[Float[Tensor, "n 3 h w"], list[str]]]
"""(how many, generator) -> pictures in [0, 1] and their captions."""


class RememberingTower:
    """A text tower that embeds each prompt once; training draws the same captions again and again.

    limit: how many prompts are remembered; about 18 KB each.
    """

    def __init__(self, tower: PromptEmbedder, limit: int) -> None:
        self._tower, self._limit = tower, limit
        self._states: dict[str, Tensor] = {}

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """What the tower gives, but padding is zero."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._states]
        if len(self._states) + len(new) > self._limit:
            self._states.clear()
            new = list(dict.fromkeys(prompts))
        if new:
            found = self._tower.embed(new)
            for prompt, states, mask in zip(new, found.states, found.mask, strict=True):
                self._states[prompt] = states[mask].half()
        rows = [self._states[prompt].float() for prompt in prompts]
        states = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return TextEmbedding(states, torch.arange(states.shape[1])[None] < lengths[:, None])


class TextBatches:
    """Draws training batches of the text prior. unconditional: the share of captions that become empty."""

    def __init__(
        self, draw: CaptionedSource, space: LatentSpace, tower: RememberingTower, batch: int, unconditional: float
    ) -> None:
        self._draw, self._space, self._tower = draw, space, tower
        self._batch, self._unconditional = batch, unconditional

    @torch.no_grad()
    def __call__(self, generator: torch.Generator) -> DenoiserBatch:
        """Latents and the embedding of captions."""
        pictures, captions = self._draw(self._batch, generator)
        dropped = torch.rand(self._batch, generator=generator) < self._unconditional
        prompts = ["" if drop else caption for drop, caption in zip(dropped.tolist(), captions, strict=True)]
        text = self._tower.embed(prompts)
        placed = TextEmbedding(text.states.to(pictures.device), text.mask.to(pictures.device))
        return DenoiserBatch(self._space.encode(pictures), {"text": placed})


def text_denoiser(unet: UNet2DConditionModel) -> Denoiser:
    """The network as a function of what TextBatches tells."""

    def denoise(noisy: Tensor, timesteps: Tensor, told: dict[str, Any]) -> Tensor:
        return unet_output(unet, noisy, timesteps, told["text"])

    return denoise
