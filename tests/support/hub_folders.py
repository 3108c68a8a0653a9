"""Folders in the layouts of public model repositories: real classes made tiny, random weights, names and conventions as published."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, LCMScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

WIDTH = 32
"""Of text states and picture embeddings."""
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Stable Diffusion's schedule."""


def hub_vae(**settings: Any) -> AutoencoderKL:
    """Four latent channels, 8 pixels a latent, as Stable Diffusion's, unless the settings say otherwise."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8, 8, 8, 16],
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        **{"scaling_factor": 0.18215, **settings},
    )


def hub_unet(in_channels: int, width: int = WIDTH, **settings: Any) -> UNet2DConditionModel:
    """Two resolutions, 64 pixels."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        block_out_channels=[16, 32],
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=2,
        norm_num_groups=8,
        **settings,
    )


def write_tokenizer(folder: Path) -> int:
    """CLIP's tokenizer with an alphabet for a vocabulary; the number of tokens."""
    folder.mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz,"
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    marks = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": "!"}
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    told = {**marks, "do_lower_case": True, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    return len(words)


def write_text_tower(folder: Path, n_tokens: int) -> None:
    """CLIP's text tower under the names that transformers gave its tensors before version 5, position ids included."""
    config = CLIPTextConfig(
        vocab_size=n_tokens,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        projection_dim=WIDTH,
        bos_token_id=n_tokens - 2,
        eos_token_id=n_tokens - 1,
        pad_token_id=1,
    )
    CLIPTextModel(config).save_pretrained(folder)
    path = folder / "model.safetensors"
    state = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(path).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path, metadata={"format": "pt"})


def hub_picture_tower(width: int = WIDTH) -> CLIPVisionModelWithProjection:
    """CLIP's picture tower."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=32,
            patch_size=8,
            projection_dim=width,
        )
    )


def write_index(folder: Path, **content: Any) -> None:
    """model_index.json."""
    (folder / "model_index.json").write_text(json.dumps(content))


def write_stable_diffusion(folder: Path, seed: int = 0, prediction: str = "epsilon") -> Path:
    """SD 1.x and 2.x: epsilon or v, PNDM scheduler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_text_tower(folder / "text_encoder", write_tokenizer(folder / "tokenizer"))
        hub_vae().save_pretrained(folder / "vae")
        hub_unet(4).save_pretrained(folder / "unet")
    PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, prediction_type=prediction).save_pretrained(
        folder / "scheduler"
    )
    write_index(folder, _class_name="StableDiffusionPipeline")
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\n")
    return folder


def write_zero123(folder: Path, seed: int = 1, component: str = "clip_camera_projection", layer: str = "proj") -> nn.Linear:
    """Zero123 as stable-dreamfusion's conversion lays it out, or, with cc_projection and projection, as its authors do; its projection."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hub_vae().save_pretrained(folder / "vae")
        hub_unet(8).save_pretrained(folder / "unet")
        hub_picture_tower().save_pretrained(folder / "image_encoder")
        linear = nn.Linear(WIDTH + 4, WIDTH)
    DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1).save_pretrained(folder / "scheduler")
    name = {"proj": "CLIPCameraProjection", "projection": "CCProjection"}[layer]
    (folder / component).mkdir()
    (folder / component / "config.json").write_text(json.dumps({"_class_name": name, "additional_embeddings": 4}))
    state = {f"{layer}.{part}": value.detach().clone() for part, value in linear.named_parameters()}
    save_file(state, folder / component / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    write_index(folder, _class_name="Zero123Pipeline")
    return linear


def write_marigold(folder: Path, seed: int = 2, *, lcm: bool = False, full_z_range: bool = True) -> Path:
    """Marigold normals, DDIM or LCM."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_text_tower(folder / "text_encoder", write_tokenizer(folder / "tokenizer"))
        hub_vae().save_pretrained(folder / "vae")
        hub_unet(8).save_pretrained(folder / "unet")
    settings = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "prediction_type": "v_prediction"}
    if lcm:
        LCMScheduler(**settings, original_inference_steps=50).save_pretrained(folder / "scheduler")
    else:
        spaced = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "steps_offset": 1}
        DDIMScheduler(**settings, **spaced).save_pretrained(folder / "scheduler")
    write_index(
        folder,
        _class_name="MarigoldNormalsPipeline",
        default_processing_resolution=64,
        default_denoising_steps=4,
        prediction_type="normals",
        use_full_z_range=full_z_range,
    )
    return folder


def write_yoso(folder: Path, seed: int = 3, *, words: bool) -> Path:
    """StableNormal's one-step part: the first generation with a text tower, the second without; its control network keeps the part that
    sees pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if words:
            write_text_tower(folder / "text_encoder", write_tokenizer(folder / "tokenizer"))
        hub_vae().save_pretrained(folder / "vae")
        unet = hub_unet(4)
        unet.save_pretrained(folder / "unet")
        control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
        for layer in (*control.controlnet_down_blocks, control.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight, std=0.3)
        control.save_pretrained(folder / "controlnet")
    config = folder / "controlnet/config.json"
    config.write_text(config.read_text().replace('"ControlNetModel"', '"ControlNetVAEModel"'))
    write_index(
        folder, _class_name="YOSONormalsPipeline", default_processing_resolution=64, prompt="a chair" if words else None
    )
    return folder
