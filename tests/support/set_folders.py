"""Folders of Zero123++ and ImageDream: layouts as published, real classes made tiny, random weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

from dreampolish.priors.multiview.imagedream_network import MultiviewUnet
from tests.support.hub_folders import BETAS, WIDTH, hub_unet, hub_vae, write_index, write_text_tower, write_tokenizer
from tests.support.original_names import original_unet

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TOWER_SIZE, TOWER_WIDTH = 32, 40


def _write_preprocessor(folder: Path, size: int, mean: list[float], deviation: list[float]) -> None:
    folder.mkdir(parents=True)
    told = {
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": mean,
        "image_processor_type": "CLIPImageProcessor",
        "image_std": deviation,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(told))


def _vision_config(projection: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=TOWER_WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=TOWER_SIZE,
        patch_size=8,
        projection_dim=projection,
    )


def write_zero123plus(folder: Path, seed: int = 7) -> Path:
    """Zero123++: v prediction, an ancestral Euler scheduler, one ramp over the 77 places of the words."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_text_tower(folder / "text_encoder", write_tokenizer(folder / "tokenizer"))
        hub_vae().save_pretrained(folder / "vae")
        hub_unet(4).save_pretrained(folder / "unet")
        CLIPVisionModelWithProjection(_vision_config(WIDTH)).save_pretrained(folder / "vision_encoder")
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", prediction_type="v_prediction", timestep_spacing="trailing"
    )
    scheduler.save_pretrained(folder / "scheduler")
    _write_preprocessor(folder / "feature_extractor_vae", 64, [0.5] * 3, [0.8] * 3)
    _write_preprocessor(folder / "feature_extractor_clip", TOWER_SIZE, CLIP_MEAN, CLIP_STD)
    write_index(
        folder,
        _class_name="Zero123PlusPipeline",
        ramping_coefficients=[0.1 + place / 100 for place in range(77)],
        feature_extractor_clip=["transformers", "CLIPImageProcessor"],
        feature_extractor_vae=["transformers", "CLIPImageProcessor"],
        scheduler=["diffusers", "EulerAncestralDiscreteScheduler"],
        text_encoder=["transformers", "CLIPTextModel"],
        tokenizer=["transformers", "CLIPTokenizer"],
        unet=["diffusers", "UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"],
        vision_encoder=["transformers", "CLIPVisionModelWithProjection"],
    )
    return folder


IMAGEDREAM: dict[str, Any] = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 8,
    "in_channels": 4,
    "model_channels": 32,
    "out_channels": 4,
    "num_res_blocks": 1,
    "attention_resolutions": [2, 1],
    "channel_mult": [1, 2],
    "num_head_channels": 16,
    "context_dim": WIDTH,
    "transformer_depth": 1,
    "camera_dim": 16,
    "ip_dim": 4,
    "use_linear_in_transformer": True,
}
"""The published config's keys, smaller."""


def write_imagedream(folder: Path, seed: int = 8) -> Path:
    """ImageDream under the names of the latent-diffusion code, as its public conversion keeps them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        write_text_tower(folder / "text_encoder", write_tokenizer(folder / "tokenizer"))
        hub_vae().save_pretrained(folder / "vae")
        CLIPVisionModel(_vision_config(WIDTH)).save_pretrained(folder / "image_encoder")
        state = original_names(MultiviewUnet(IMAGEDREAM, TOWER_WIDTH).state_dict())
    (folder / "unet").mkdir()
    (folder / "unet/config.json").write_text(json.dumps(IMAGEDREAM))
    save_file(state, folder / "unet/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1).save_pretrained(folder / "scheduler")
    _write_preprocessor(folder / "feature_extractor", TOWER_SIZE, CLIP_MEAN, CLIP_STD)
    write_index(folder, _class_name="MVDreamPipeline")
    return folder


_RESAMPLER = {"ln0": "0.norm1", "ln1": "0.norm2", "ff.0": "1.0", "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}


def original_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's tensors under the names of the latent-diffusion code: the way back from the loader."""
    unet = {
        name.removeprefix("unet.").replace(".processor.", "."): value
        for name, value in state.items()
        if name.startswith("unet.")
    }
    found = {name.removeprefix("model.diffusion_model."): value for name, value in original_unet(unet, layers=1).items()}
    for name, value in state.items():
        if name.startswith("camera_embed."):
            found[name] = value
        elif name.startswith("image_embed."):
            found |= _resampler_name(name, value, state)
    return {name: value.contiguous() for name, value in found.items()}


def _resampler_name(name: str, value: torch.Tensor, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if ".layers." not in name:
        return {name: value}
    head, number, inside = name.split(".", 2)[0] + ".layers", name.split(".")[2], name.split(".", 3)[3]
    place = f"{head}.{number}."
    if inside == "attn.to_k.weight":
        return {f"{place}0.to_kv.weight": torch.cat([value, state[name.replace("to_k", "to_v")]])}
    if inside == "attn.to_v.weight":
        return {}
    if inside.startswith("attn."):
        return {f"{place}0.{inside.removeprefix('attn.').replace('to_out.0', 'to_out')}": value}
    part, _, kind = inside.rpartition(".")
    return {f"{place}{_RESAMPLER[part]}.{kind}": value}
