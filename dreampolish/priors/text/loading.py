"""Opening a text prior's folder: the embedded one, Stable Diffusion 1, 2, XL, 3 and 3.5, FLUX.1, by what its components are."""

from collections.abc import Mapping
from typing import Any

from dreampolish.priors.folders.families import transformer_family
from dreampolish.priors.folders.loading import (
    flow_schedule,
    load_autoencoder,
    load_schedule,
    load_text_encoder,
    load_transformer,
    load_unet,
)
from dreampolish.priors.folders.source import PriorSource, json_object
from dreampolish.priors.latents import LatentSpace, pixels_per_latent
from dreampolish.priors.sampling import NoiseSchedule
from dreampolish.priors.text.networks import FlowTransformer, FluxTransformer, ScoreNetwork, SdxlNetwork, UnetNetwork
from dreampolish.priors.text.prior import DiffusionTextPrior
from dreampolish.priors.text.towers import (
    FLUX_T5_TOKENS,
    SD3_T5_TOKENS,
    ClipTower,
    FluxTowers,
    PromptEmbedder,
    Sd3Towers,
    SdxlTowers,
    T5Tower,
    TextTower,
)


def load_text_prior(source: PriorSource, image_size: int | None = None) -> DiffusionTextPrior:
    """Open a text prior. image_size: pixels of a side to work at; None: what its folder says. PriorError in one line for what cannot be."""
    return _with_transformer(source, image_size) if source.has("transformer") else _with_unet(source, image_size)


def _with_unet(source: PriorSource, image_size: int | None) -> DiffusionTextPrior:
    autoencoder, unet = load_autoencoder(source), load_unet(source)
    size = int(autoencoder.config.sample_size)
    if "patch_size" not in autoencoder.config:  # Stable Diffusion keeps the latent side in the U-Net
        size = int(unet.config.sample_size) * pixels_per_latent(autoencoder)
    size = image_size or size
    space = LatentSpace(autoencoder, load_schedule(source), size)
    if unet.config.addition_embed_type == "text_time":
        return DiffusionTextPrior(space, SdxlNetwork(unet, size), _sdxl_towers(source))
    return DiffusionTextPrior(space, UnetNetwork(unet), TextTower(*load_text_encoder(source)))


def _with_transformer(source: PriorSource, image_size: int | None) -> DiffusionTextPrior:
    config = json_object(source.component("transformer") / "config.json")
    family = transformer_family(config, source.location)
    autoencoder = load_autoencoder(source)
    size = image_size or family.latent_side(config) * pixels_per_latent(autoencoder)
    latent_side = size // pixels_per_latent(autoencoder)
    schedule = flow_schedule(source, n_tokens=(latent_side // 2) ** 2)
    space, transformer = LatentSpace(autoencoder, schedule, size), load_transformer(source)
    network, towers = _flow_parts(source, config, transformer, schedule)
    return DiffusionTextPrior(space, network, towers)


def _flow_parts(
    source: PriorSource, config: Mapping[str, Any], transformer: Any, schedule: NoiseSchedule
) -> tuple[ScoreNetwork, PromptEmbedder]:
    first = ClipTower(*load_text_encoder(source))
    if config.get("_class_name") == "FluxTransformer2DModel":
        t5 = T5Tower(*load_text_encoder(source, "_2"), FLUX_T5_TOKENS)
        return FluxTransformer(transformer, schedule), FluxTowers(first, t5)
    second = ClipTower(*load_text_encoder(source, "_2"))
    third = T5Tower(*load_text_encoder(source, "_3"), SD3_T5_TOKENS) if source.has("text_encoder_3") else None
    return FlowTransformer(transformer, schedule), Sd3Towers(first, second, third, int(config["joint_attention_dim"]))


def _sdxl_towers(source: PriorSource) -> SdxlTowers:
    first, second = ClipTower(*load_text_encoder(source)), ClipTower(*load_text_encoder(source, "_2"))
    return SdxlTowers(first, second, zero_empty=source.index().get("force_zeros_for_empty_prompt") is not False)
