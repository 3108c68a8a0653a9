"""Prompts to token states: one tower, or the two and three that SDXL, Stable Diffusion 3 and FLUX join.

Each joins its towers as `encode_prompt` of its pipeline in diffusers does; tests compare them.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from dreampolish.priors.protocols import TextEmbedding

SD3_T5_TOKENS, FLUX_T5_TOKENS = 256, 512
"""Tokens that T5 gets (source: the defaults of diffusers' pipelines; FLUX.1-schnell was trained on 256 and takes 512)."""


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


class ClipTower:
    """A CLIP text tower of which more than the last states is wanted."""

    def __init__(self, tokenizer: Any, encoder: Any) -> None:
        self._tokenizer, self.encoder = tokenizer, encoder

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(states before the last layer (B, 77, D), pooled (B, P): projected where the tower has a projection), float32."""
        found = self.encoder(_tokens(self, self._tokenizer, prompts), output_hidden_states=True)
        pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
        return found.hidden_states[-2].float(), pooled.float()


class T5Tower:
    """A T5 encoder over a fixed number of tokens, padding included, without a mask: so the flow models were trained."""

    def __init__(self, tokenizer: Any, encoder: Any, n_tokens: int) -> None:
        self._tokenizer, self.encoder, self._n_tokens = tokenizer, encoder, n_tokens

    @torch.no_grad()
    def read(self, prompts: Sequence[str]) -> Tensor:
        """States (B, n_tokens, D), float32."""
        return self.encoder(_tokens(self, self._tokenizer, prompts, self._n_tokens)).last_hidden_state.float()


def _tokens(tower: ClipTower | T5Tower, tokenizer: Any, prompts: Sequence[str], n_tokens: int | None = None) -> Tensor:
    """Token numbers (B, L), padded to a fixed length; longer prompts are cut."""
    length = int(tokenizer.model_max_length) if n_tokens is None else n_tokens
    found = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids: Tensor = found.input_ids.to(next(tower.encoder.parameters()).device)
    return ids


class SdxlTowers:
    """Two CLIP towers side by side; the second one's projection is the pooled text.

    zero_empty: whether the empty prompt is all zeros (`force_zeros_for_empty_prompt` of the folder's index).
    """

    def __init__(self, first: ClipTower, second: ClipTower, *, zero_empty: bool) -> None:
        self._towers, self._zero_empty = (first, second), zero_empty

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """States (B, 77, D1 + D2) and pooled text (B, P)."""
        read = [tower.read(prompts) for tower in self._towers]
        states, pooled = torch.cat([each[0] for each in read], dim=-1), read[-1][1]
        if self._zero_empty:
            empty = torch.tensor([not prompt for prompt in prompts], device=states.device)
            states, pooled = states.masked_fill(empty[:, None, None], 0.0), pooled.masked_fill(empty[:, None], 0.0)
        return TextEmbedding(states, torch.ones_like(states[..., 0], dtype=torch.bool), pooled)

    def to(self, device: torch.device | str) -> None:
        """Move both."""
        for tower in self._towers:
            tower.encoder.to(device)


class Sd3Towers:
    """Two CLIP towers side by side, filled up with zeros to T5's width, and T5's states behind them.

    t5: None where the folder has none; its states are zeros then. width: of the joined states.
    """

    def __init__(self, first: ClipTower, second: ClipTower, t5: T5Tower | None, width: int) -> None:
        self._clips, self._t5, self._width = (first, second), t5, width

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """States (B, 77 + 256, width) and pooled text (B, P1 + P2)."""
        read = [tower.read(prompts) for tower in self._clips]
        words = torch.cat([each[0] for each in read], dim=-1)
        words = functional.pad(words, (0, self._width - words.shape[-1]))
        if self._t5 is None:
            sentences = words.new_zeros(len(words), SD3_T5_TOKENS, self._width)
        else:
            sentences = self._t5.read(prompts)
        states = torch.cat([words, sentences], dim=1)
        return TextEmbedding(
            states, torch.ones_like(states[..., 0], dtype=torch.bool), torch.cat([each[1] for each in read], dim=-1)
        )

    def to(self, device: torch.device | str) -> None:
        """Move all."""
        for tower in (*self._clips, *(() if self._t5 is None else (self._t5,))):
            tower.encoder.to(device)


class FluxTowers:
    """T5's states, and CLIP's pooled text."""

    def __init__(self, clip: ClipTower, t5: T5Tower) -> None:
        self._clip, self._t5 = clip, t5

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """States (B, 512, D) and pooled text (B, P)."""
        states = self._t5.read(prompts)
        return TextEmbedding(states, torch.ones_like(states[..., 0], dtype=torch.bool), self._clip.read(prompts)[1])

    def to(self, device: torch.device | str) -> None:
        """Move both."""
        self._clip.encoder.to(device)
        self._t5.encoder.to(device)
