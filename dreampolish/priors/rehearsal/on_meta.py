"""A prior's networks laid out on `meta`, where tensors have shapes and no content, and something to show them."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dreampolish.priors.folders.architectures import checked_diffusers
from dreampolish.priors.folders.contents import AUTOENCODERS, UNETS, Contents
from dreampolish.priors.folders.families import TRANSFORMERS
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.latents import pixels_per_latent
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import NoiseSchedule
from dreampolish.priors.text.networks import FlowTransformer, FluxTransformer, ScoreNetwork, SdxlNetwork, UnetNetwork
from dreampolish.priors.text.towers import FLUX_T5_TOKENS, SD3_T5_TOKENS

CLIP_TOKENS, FEW_TOKENS = 77, 2
"""Tokens of a text prior's prompt, and of the empty one that Marigold sees."""
META = torch.device("meta")


@dataclass(frozen=True)
class Outline:
    """A prior without weights. network: what is asked for scores. tokens: of one text or picture."""

    network: ScoreNetwork
    autoencoder: Any
    channels: int
    image_size: int
    tokens: int
    context_dim: int
    pooled_dim: int | None
    labels_dim: int | None

    @property
    def side(self) -> int:
        """Of a latent."""
        return self.image_size // pixels_per_latent(self.autoencoder)

    def text(self, n: int) -> TextEmbedding:
        """Embeddings of n texts."""
        states = torch.empty(n, self.tokens, self.context_dim, device=META)
        pooled = None if self.pooled_dim is None else torch.empty(n, self.pooled_dim, device=META)
        return TextEmbedding(states, torch.ones(n, self.tokens, dtype=torch.bool), pooled)

    def predict(self, n: int) -> Tensor:
        """The network's answer to n noisy latents, with whatever it sees beside them."""
        noisy = torch.empty(n, self.channels, self.side, self.side, device=META)
        timesteps = torch.empty(n, dtype=torch.int64, device=META)
        if self.labels_dim is None:
            return self.network.output(self.network.module, noisy, timesteps, self.text(n))
        module = self.network.module
        labels = torch.empty(n, self.labels_dim, dtype=module.dtype, device=META)
        states = self.text(n).states.to(module.dtype)
        found: Tensor = module(noisy.to(module.dtype), timesteps, encoder_hidden_states=states, class_labels=labels).sample
        return found


def outline_of(source: PriorSource, contents: Contents, image_size: int) -> Outline:
    """The networks that a prior's configs describe. image_size: pixels of a side that it works at."""
    with META:
        autoencoder = _laid_out(source, "vae", AUTOENCODERS)
        name = "transformer" if source.has("transformer") else "unet"
        module = _laid_out(source, name, (*UNETS, *TRANSFORMERS))
    channels = int(module.config.in_channels)
    pooled = None
    if name == "transformer":
        schedule = NoiseSchedule(torch.empty(1000, device=META), "flow")
        is_flux = type(module).__name__ == "FluxTransformer2DModel"
        network: ScoreNetwork = (FluxTransformer if is_flux else FlowTransformer)(module, schedule)
        channels = channels // 4 if is_flux else channels
        tokens = FLUX_T5_TOKENS if is_flux else CLIP_TOKENS + SD3_T5_TOKENS
        context, pooled = int(module.config.joint_attention_dim), int(module.config.pooled_projection_dim)
    else:
        is_sdxl = module.config.addition_embed_type == "text_time"
        network = SdxlNetwork(module, image_size) if is_sdxl else UnetNetwork(module)
        tokens = {"text": CLIP_TOKENS, "view": 1, "normals": FEW_TOKENS}[contents.role]
        context = int(module.config.cross_attention_dim)
        if is_sdxl:
            pooled = int(module.config.projection_class_embeddings_input_dim) - 6 * int(module.config.addition_time_embed_dim)
    return Outline(
        network=network,
        autoencoder=autoencoder,
        channels=channels,
        image_size=image_size,
        tokens=tokens,
        context_dim=context,
        pooled_dim=pooled,
        labels_dim=_labels(module),
    )


def _laid_out(source: PriorSource, component: str, known: tuple[str, ...]) -> Any:
    kind, config, _ = checked_diffusers(source.component(component), known)
    return kind.from_config(config).eval().requires_grad_(False)


def _labels(module: Any) -> int | None:
    """The width of what joins the time embedding, where the network has a place for it."""
    if getattr(module.config, "class_embed_type", None) is None:
        return None
    return int(module.config.projection_class_embeddings_input_dim or 4)


@contextlib.contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention be one operation that keeps no square of weights, as on a GPU: on `meta` torch takes the plain formula."""
    plain: Callable[..., Tensor] = functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **how: Any) -> Tensor:
        causal, scale = bool(how.get("is_causal")), how.get("scale")
        found: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, is_causal=causal, attn_mask=attn_mask, scale=scale
        )[0]
        return found

    functional.scaled_dot_product_attention = fused  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain
