"""Writes folders of real architectures in their public layouts, with holes or random numbers for weights."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from dreampolish.priors.rehearsal.architectures import MARIGOLD_SCHEDULE, SD2_SCHEDULE, Clip, Family, Sizes, Unet
from dreampolish.priors.rehearsal.weight_files import Content, write_weights

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"
VOCABULARY, POSITIONS = 49408, 77
"""Of CLIP's text towers."""
POSE_NUMBERS = 4
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,"


def write_text(folder: Path, sizes: Sizes, family: Family, content: Content) -> Path:
    """A text prior: Stable Diffusion 2.1's, SDXL's or, without T5, Stable Diffusion 3.5-medium's layout."""
    _write_words(folder, "", sizes.words, content)
    if family != "sd":
        _write_words(folder, "_2", sizes.more_words, content)
    if family == "sd3":
        _vae(folder, sizes, {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, **NO_QUANT}, content)
        with torch.device("meta"):
            _component(folder / "transformer", SD3Transformer2DModel(**sizes.transformer), content)
        FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
        return _indexed(folder, _class_name="StableDiffusion3Pipeline")
    _vae(folder, sizes, {"scaling_factor": 0.13025, "force_upcast": True} if family == "sdxl" else {}, content)
    _unet(folder, sizes.text, sizes.groups, in_channels=4, content=content)
    DDIMScheduler(**SD2_SCHEDULE).save_pretrained(folder / "scheduler")
    return _indexed(folder, _class_name="StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline")


def write_view(folder: Path, sizes: Sizes, content: Content) -> Path:
    """A view prior in Zero123's layout."""
    _vae(folder, sizes, {}, content)
    _unet(folder, sizes.view, sizes.groups, in_channels=8, content=content)
    tower, width = sizes.pictures, sizes.view.context
    settings = CLIPVisionConfig(
        hidden_size=tower.hidden,
        intermediate_size=4 * tower.hidden,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        image_size=sizes.picture_size,
        patch_size=sizes.picture_size // 16 if sizes.picture_size > 100 else 8,
        projection_dim=tower.projection,
    )
    with torch.device("meta"):
        _tower(folder / "image_encoder", CLIPVisionModelWithProjection(settings), settings, content)
        projection = nn.ModuleDict({"proj": nn.Linear((tower.projection or width) + POSE_NUMBERS, width)})
    write_weights(folder / "cc_projection" / DIFFUSERS, projection, content)
    _json(folder / "cc_projection" / "config.json", _class_name="CLIPCameraProjection", additional_embeddings=POSE_NUMBERS)
    DDIMScheduler(**SD2_SCHEDULE).save_pretrained(folder / "scheduler")
    return _indexed(folder, _class_name="Zero123Pipeline")


def write_normals(folder: Path, sizes: Sizes, content: Content) -> Path:
    """A normal prior in Marigold's layout."""
    _vae(folder, sizes, {}, content)
    _unet(folder, sizes.normals, sizes.groups, in_channels=8, content=content)
    _write_words(folder, "", sizes.words, content)
    DDIMScheduler(**MARIGOLD_SCHEDULE).save_pretrained(folder / "scheduler")
    return _indexed(folder, _class_name="MarigoldNormalsPipeline", default_processing_resolution=sizes.normals_size)


NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}


def _vae(folder: Path, sizes: Sizes, settings: dict[str, Any], content: Content) -> None:
    n = len(sizes.vae)
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * n,
            up_block_types=["UpDecoderBlock2D"] * n,
            block_out_channels=list(sizes.vae),
            layers_per_block=2,
            norm_num_groups=sizes.groups,
            **{"force_upcast": False, **settings},
        )
        _component(folder / "vae", vae, content)


def _unet(folder: Path, unet: Unet, groups: int, in_channels: int, content: Content) -> None:
    with torch.device("meta"):
        network = UNet2DConditionModel(
            sample_size=unet.side,
            in_channels=in_channels,
            block_out_channels=list(unet.channels),
            attention_head_dim=unet.heads if isinstance(unet.heads, int) else list(unet.heads),
            cross_attention_dim=unet.context,
            norm_num_groups=groups,
            **unet.settings,
        )
        _component(folder / "unet", network, content)


def _component(folder: Path, network: Any, content: Content) -> None:
    write_weights(folder / DIFFUSERS, network, content)
    network.save_config(folder)


def _tower(folder: Path, network: Any, config: Any, content: Content) -> None:
    write_weights(folder / TRANSFORMERS, network, content)
    config.architectures = [type(network).__name__]
    config.save_pretrained(folder)


def _write_words(folder: Path, which: str, tower: Clip, content: Content) -> None:
    """A CLIP text tower and a tokenizer with an alphabet for a vocabulary: as many tokens as the real one, other numbers."""
    n_words = _write_tokenizer(folder / f"tokenizer{which}")
    settings = CLIPTextConfig(
        vocab_size=VOCABULARY if tower.layers > 1 else n_words,
        hidden_size=tower.hidden,
        intermediate_size=4 * tower.hidden,
        num_hidden_layers=tower.layers,
        num_attention_heads=tower.heads,
        max_position_embeddings=POSITIONS,
        projection_dim=tower.projection or tower.hidden,
        bos_token_id=n_words - 2,
        eos_token_id=n_words - 1,
        pad_token_id=0,
    )
    kind = CLIPTextModel if tower.projection is None else CLIPTextModelWithProjection
    with torch.device("meta"):
        _tower(folder / f"text_encoder{which}", kind(settings), settings, content)


def _write_tokenizer(folder: Path) -> int:
    words = ["!", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    marks = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": "!"}
    _json(folder / "vocab.json", **{word: index for index, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    told = {**marks, "do_lower_case": True, "model_max_length": POSITIONS, "tokenizer_class": "CLIPTokenizer"}
    _json(folder / "tokenizer_config.json", **told)
    _json(folder / "special_tokens_map.json", **marks)
    return len(words)


def _indexed(folder: Path, **content: Any) -> Path:
    _json(folder / "model_index.json", **content)
    return folder


def _json(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
