"""Zero123's single-file checkpoints, which keep the names of the latent-diffusion code, as components in diffusers layout.

The networks' sizes are read off the tensors' shapes. U-Net and autoencoder are renamed by diffusers' own converters; the picture tower is
OpenAI's CLIP, the pose projection one linear layer (source: Zero123's and threestudio's code).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor
from transformers import CLIPVisionConfig

from dreampolish.priors.folders.source import PriorError

State = Mapping[str, Tensor]

UNET, VAE, TOWER, PROJECTION = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.model.visual.",
    "cc_projection.",
)
PICTURE_SIZE = 256
"""Pixels of a side that Zero123 was trained at."""
HEADS_OF_SD1, HEAD_WIDTH, CLIP_HEAD_WIDTH = 8, 64, 64
"""Heads of Stable Diffusion 1's attention; width of a head in Stable Diffusion 2's, and in CLIP's towers."""


@dataclass(frozen=True)
class Component:
    """One component's config and tensors, by the names that diffusers or transformers give them. base: of its weight file."""

    config: Mapping[str, Any]
    state: State
    base: str


def components_from_checkpoint(state: State, pose: str) -> dict[str, Component]:
    """vae, unet, image_encoder and cc_projection of a Zero123 checkpoint. pose: the convention of its poses' fourth number.

    PriorError, naming the part, where the checkpoint is another model's.
    """
    for part in (UNET, VAE, TOWER, PROJECTION):
        if not any(name.startswith(part) for name in state):
            raise PriorError(
                f"the checkpoint has no tensors {part}*: only Zero123's single files can be converted; "
                "take the folder in diffusers layout of any other model"
            )
    unet, vae = _unet_config(_part(state, UNET)), _vae_config(_part(state, VAE))
    projection = _part(state, PROJECTION)
    width, inputs = projection["weight"].shape
    return {
        "unet": Component(unet, convert_ldm_unet_checkpoint(dict(state), unet), "diffusion_pytorch_model"),
        "vae": Component(vae, convert_ldm_vae_checkpoint(dict(state), vae), "diffusion_pytorch_model"),
        "image_encoder": _tower(_part(state, TOWER)),
        "cc_projection": Component(
            {
                "_class_name": "PoseProjection",
                "context_dim": inputs - 4,
                "output_dim": width,
                "tokens": 0,
                "pose": pose,
                "empty_context": True,
            },
            {**{f"linear.{name}": value for name, value in projection.items()}, "offsets": torch.zeros(1, width)},
            "diffusion_pytorch_model",
        ),
    }


def schedule_of_zero123() -> DDIMScheduler:
    """Stable Diffusion 1's schedule, which Zero123 keeps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def _part(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _unet_config(state: State) -> dict[str, Any]:
    try:
        return _read_unet_config(state)
    except (KeyError, IndexError) as error:
        raise PriorError(f"the checkpoint's U-Net is not Stable Diffusion's: {error} is missing") from None


def _read_unet_config(state: State) -> dict[str, Any]:
    n_blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("input_blocks."))
    ends = [index for index in range(n_blocks) if f"input_blocks.{index}.0.op.weight" in state]
    layers = ends[0] - 1
    firsts = range(1, n_blocks, layers + 1)
    channels = [state[f"input_blocks.{index}.0.out_layers.3.weight"].shape[0] for index in firsts]
    attended = [f"input_blocks.{index}.1.norm.weight" in state for index in firsts]
    where = next((first for first, each in zip(firsts, attended, strict=True) if each), 1)
    attention = f"input_blocks.{where}.1"
    is_linear = state[f"{attention}.proj_in.weight"].dim() == 2
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": PICTURE_SIZE // 2 ** (len(channels) - 1),
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": state["out.2.weight"].shape[0],
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attended)],
        "cross_attention_dim": state[f"{attention}.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "attention_head_dim": [each // HEAD_WIDTH for each in channels] if is_linear else HEADS_OF_SD1,
        "use_linear_projection": is_linear,
    }


def _vae_config(state: State) -> dict[str, Any]:
    n_levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.down."))
    channels = [state[f"encoder.down.{level}.block.0.conv1.weight"].shape[0] for level in range(n_levels)]
    layers = 1 + max(int(name.split(".")[4]) for name in state if name.startswith("encoder.down.0.block."))
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": PICTURE_SIZE,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": state["quant_conv.weight"].shape[0] // 2,
        "block_out_channels": channels,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * n_levels,
        "up_block_types": ["UpDecoderBlock2D"] * n_levels,
        "scaling_factor": 0.18215,
    }


_TOWER_NAMES = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
    "attn.out_proj.": "self_attn.out_proj.",
}
"""Layers of a block: OpenAI's name and that of transformers."""


def _tower(state: State) -> Component:
    """OpenAI's picture tower as transformers' CLIPVisionModelWithProjection."""
    width, _, patch, _ = state["conv1.weight"].shape
    n_layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks."))
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        num_hidden_layers=n_layers,
        num_attention_heads=max(1, width // CLIP_HEAD_WIDTH),
        image_size=patch * round((len(state["positional_embedding"]) - 1) ** 0.5),
        patch_size=patch,
        projection_dim=state["proj"].shape[1],
        hidden_act="quick_gelu",
        architectures=["CLIPVisionModelWithProjection"],
    )
    found = {
        "visual_projection.weight": state["proj"].T.contiguous(),
        "vision_model.embeddings.class_embedding": state["class_embedding"],
        "vision_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["conv1.weight"],
    }
    for ours, theirs in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")):
        found |= {f"vision_model.{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}
    for number in range(n_layers):
        found |= _tower_block(_part(state, f"transformer.resblocks.{number}."), f"vision_model.encoder.layers.{number}.")
    return Component(config.to_dict(), found, "model")


def _tower_block(state: State, prefix: str) -> dict[str, Tensor]:
    """One block; the joint matrix of queries, keys and values is cut in three."""
    found = {}
    for part in ("weight", "bias"):
        for name, value in zip("qkv", state[f"attn.in_proj_{part}"].chunk(3), strict=True):
            found[f"{prefix}self_attn.{name}_proj.{part}"] = value
        for theirs, ours in _TOWER_NAMES.items():
            found[f"{prefix}{ours}{part}"] = state[f"{theirs}{part}"]
    return found
