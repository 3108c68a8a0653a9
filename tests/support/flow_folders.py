"""Folders of SDXL, Stable Diffusion 3 and FLUX.1: real classes made tiny, random weights, layouts as published."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests.support.hub_folders import BETAS, WIDTH, hub_vae, write_index, write_tokenizer

SECOND, POOLED = 48, 40
"""Widths of the second CLIP tower's states and of its projection."""


def flow_vae() -> AutoencoderKL:
    """16 latent channels with a shift, without the 1 x 1 convolutions around the latents."""
    return hub_vae(
        latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False
    )


def write_clip_tower(folder: Path, suffix: str, width: int, *, projected: bool) -> None:
    """A CLIP tower of two layers and its tokenizer, `text_encoder<suffix>` and `tokenizer<suffix>`."""
    n_tokens = write_tokenizer(folder / f"tokenizer{suffix}")
    config = CLIPTextConfig(
        vocab_size=n_tokens,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=POOLED if width == SECOND else WIDTH,
        bos_token_id=n_tokens - 2,
        eos_token_id=n_tokens - 1,
        pad_token_id=1,
    )
    kind: Any = CLIPTextModelWithProjection if projected else CLIPTextModel
    kind(config).save_pretrained(folder / f"text_encoder{suffix}")


def write_t5_tower(folder: Path, suffix: str, width: int) -> None:
    """A T5 encoder of one layer and a tokenizer of letters that ends each text with </s>."""
    words = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz,"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **marks).save_pretrained(
        folder / f"tokenizer{suffix}"
    )
    config = T5Config(
        vocab_size=len(words), d_model=width, d_ff=width, d_kv=8, num_heads=2, num_layers=1, feed_forward_proj="gated-gelu"
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{suffix}")


def write_sdxl(folder: Path, seed: int = 4) -> Path:
    """SDXL: two CLIP towers, pooled text and sizes as conditions, epsilon."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_clip_tower(folder, "", WIDTH, projected=False)
        write_clip_tower(folder, "_2", SECOND, projected=True)
        hub_vae().save_pretrained(folder / "vae")
        UNet2DConditionModel(
            sample_size=8,
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
            block_out_channels=[16, 32],
            layers_per_block=1,
            transformer_layers_per_block=[1, 2],
            cross_attention_dim=WIDTH + SECOND,
            attention_head_dim=[2, 4],
            use_linear_projection=True,
            norm_num_groups=8,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=POOLED + 6 * 8,
        ).save_pretrained(folder / "unet")
    EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading").save_pretrained(folder / "scheduler")
    write_whole_index(folder, "StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True)
    return folder


def write_sd3(folder: Path, seed: int = 5, *, with_t5: bool = True, qk_norm: str | None = "rms_norm") -> Path:
    """Stable Diffusion 3; with qk_norm 3.5. Shift 3, as published."""
    joint = 96
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_clip_tower(folder, "", WIDTH, projected=True)
        write_clip_tower(folder, "_2", SECOND, projected=True)
        if with_t5:
            write_t5_tower(folder, "_3", joint)
        flow_vae().save_pretrained(folder / "vae")
        SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=joint,
            caption_projection_dim=32,
            pooled_projection_dim=WIDTH + POOLED,
            out_channels=16,
            pos_embed_max_size=24,
            qk_norm=qk_norm,
        ).save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    write_whole_index(folder, "StableDiffusion3Pipeline")
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: stabilityai-ai-community\n---\n")
    return folder


def write_flux(folder: Path, seed: int = 6, *, dev: bool = False) -> Path:
    """FLUX.1-schnell, or -dev: guidance built in, the shift by the picture's size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_clip_tower(folder, "", WIDTH, projected=False)
        write_t5_tower(folder, "_2", 64)
        flow_vae().save_pretrained(folder / "vae")
        FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=64,
            pooled_projection_dim=WIDTH,
            guidance_embeds=dev,
            axes_dims_rope=(4, 6, 6),
        ).save_pretrained(folder / "transformer")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0 if dev else 1.0, use_dynamic_shifting=dev)
    scheduler.save_pretrained(folder / "scheduler")
    write_whole_index(folder, "FluxPipeline")
    return folder


def rewritten_config(path: Path, **changes: Any) -> None:
    """Change a JSON file's entries."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_whole_index(folder: Path, pipeline: str, **content: Any) -> None:
    """model_index.json with a library and a class for each component, as published."""
    components = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        if part.name.startswith("tokenizer"):
            kind = ["transformers", "CLIPTokenizer" if (part / "vocab.json").is_file() else "PreTrainedTokenizerFast"]
        elif part.name.startswith("text_encoder"):
            kind = ["transformers", json.loads((part / "config.json").read_text())["architectures"][0]]
        else:
            settings = next(path for path in (part / "config.json", part / "scheduler_config.json") if path.is_file())
            kind = ["diffusers", json.loads(settings.read_text())["_class_name"]]
        components[part.name] = kind
    write_index(folder, _class_name=pipeline, **components, **content)
