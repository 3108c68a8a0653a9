"""The public numbers of real models' configs. Source: the config.json files of their repositories, as diffusers' pipelines and the models'
cards give them; what equals diffusers' defaults is left out."""

from dataclasses import dataclass, replace
from typing import Any, Literal

Family = Literal["sd", "sdxl", "sd3"]

DIFFUSION: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD2_SCHEDULE: dict[str, Any] = {**DIFFUSION, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
MARIGOLD_SCHEDULE: dict[str, Any] = {
    **SD2_SCHEDULE,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


@dataclass(frozen=True)
class Clip:
    """A CLIP tower. projection: width of what it gives for a whole text or picture; None: no such layer."""

    hidden: int
    layers: int
    heads: int
    projection: int | None


@dataclass(frozen=True)
class Unet:
    """Of UNet2DConditionModel. side: of its latents. settings: what differs from diffusers' defaults besides."""

    channels: tuple[int, ...]
    heads: int | tuple[int, ...]
    context: int
    side: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """The numbers of one set of models. vae: channels of its blocks. groups: of its and the U-Nets' group norms."""

    text: Unet
    view: Unet
    normals: Unet
    normals_size: int
    vae: tuple[int, ...]
    groups: int
    words: Clip
    more_words: Clip
    pictures: Clip
    picture_size: int
    transformer: dict[str, Any]


LINEAR: dict[str, Any] = {"use_linear_projection": True}
SDXL_BLOCKS: dict[str, Any] = {
    **LINEAR,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
WIDE = (320, 640, 1280, 1280)
SD2_UNET = Unet(channels=WIDE, heads=(5, 10, 20, 20), context=1024, side=64, settings=LINEAR)
SD35_MEDIUM: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": list(range(13)),
    "qk_norm": "rms_norm",
}

FULL = Sizes(
    text=SD2_UNET,
    view=Unet(channels=WIDE, heads=8, context=768, side=32, settings={}),
    normals=replace(SD2_UNET, side=96),
    normals_size=768,
    vae=(128, 256, 512, 512),
    groups=32,
    words=Clip(hidden=1024, layers=23, heads=16, projection=None),
    more_words=Clip(hidden=1280, layers=32, heads=20, projection=1280),
    pictures=Clip(hidden=1024, layers=24, heads=16, projection=768),
    picture_size=224,
    transformer=SD35_MEDIUM,
)
"""Stable Diffusion 2.1-base, Zero123-XL and Marigold normals."""
XL_UNET = Unet(channels=(320, 640, 1280), heads=(5, 10, 20), context=2048, side=128, settings=SDXL_BLOCKS)
FULL_XL = replace(FULL, text=XL_UNET, words=Clip(hidden=768, layers=12, heads=12, projection=768))
"""The same with SDXL or Stable Diffusion 3.5-medium for a text prior."""

_SMALL = (16, 32, 32, 32)
_TINY_CLIP = Clip(hidden=32, layers=1, heads=2, projection=None)
_TINY_UNET = Unet(channels=_SMALL, heads=(2, 2, 2, 2), context=32, side=8, settings=LINEAR)
TINY = Sizes(
    text=_TINY_UNET,
    view=replace(_TINY_UNET, side=8),
    normals=_TINY_UNET,
    normals_size=64,
    vae=(8, 8, 8, 16),
    groups=4,
    words=_TINY_CLIP,
    more_words=replace(_TINY_CLIP, projection=32),
    pictures=replace(_TINY_CLIP, projection=32),
    picture_size=32,
    transformer={
        **SD35_MEDIUM,
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 64,
        "pos_embed_max_size": 16,
        "dual_attention_layers": [0],
    },
)
"""All of it in widths that two CPU cores run."""
TINY_XL = replace(
    TINY,
    words=replace(_TINY_CLIP, projection=32),
    text=replace(
        _TINY_UNET,
        channels=(16, 32, 32),
        heads=(2, 2, 2),
        context=64,
        settings={
            **SDXL_BLOCKS,
            "transformer_layers_per_block": 1,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 80,
        },
    ),
)
