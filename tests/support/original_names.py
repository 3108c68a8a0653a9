"""Names of the latent-diffusion code for diffusers' tensors: the way back from converters.

Written after the layout of Stable Diffusion 1's `openaimodel.py` and `model.py`, for one attention a level and any number of levels.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def original_unet(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A U-Net's tensors under the names of `openaimodel.py`. layers: resnets of a level on the way down."""
    return {f"model.diffusion_model.{_unet_name(name, state, layers)}": value for name, value in state.items()}


def _unet_name(name: str, state: Mapping[str, Tensor], layers: int) -> str:
    head, part = name.rsplit(".", 1)
    if head in _ENDS:
        return f"{_ENDS[head]}.{part}"
    if name.startswith("mid_block."):
        kind, number, rest = name.removeprefix("mid_block.").split(".", 2)
        return f"middle_block.{_MIDDLE[f'{kind}.{number}']}.{_inner(kind, rest)}"
    way, level, kind, number, rest = name.split(".", 4)
    if way == "down_blocks":
        block = 1 + int(level) * (layers + 1) + (layers if kind == "downsamplers" else int(number))
        if kind == "downsamplers":
            return f"input_blocks.{block}.0.op.{part}"
        return f"input_blocks.{block}.{int(kind == 'attentions')}.{_inner(kind, rest)}"
    block = int(level) * (layers + 1) + (layers if kind == "upsamplers" else int(number))
    if kind == "upsamplers":
        has_attention = any(each.startswith(f"up_blocks.{level}.attentions") for each in state)
        return f"output_blocks.{block}.{1 + has_attention}.conv.{part}"
    return f"output_blocks.{block}.{int(kind == 'attentions')}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    layer, dot, part = rest.rpartition(".")
    return f"{_RESNET[layer]}{dot}{part}" if kind == "resnets" else rest


def original_vae(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """An autoencoder's tensors under the names of `model.py`."""
    return {f"first_stage_model.{_vae_name(name, levels)}": _as_convolution(name, value) for name, value in state.items()}


def _as_convolution(name: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if "attentions" in name and value.dim() == 2 else value


def _vae_name(name: str, levels: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"mid_block.attentions.0.{ours}", f"mid.attn_1.{theirs}")
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{levels - 1 - int(found[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{levels - 1 - int(found[1])}.upsample", name)


def original_picture_tower(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """A CLIP picture tower's tensors under OpenAI's names."""
    prefix, found = "cond_stage_model.model.visual.", {}
    for ours, theirs in (
        ("embeddings.class_embedding", "class_embedding"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
        ("embeddings.patch_embedding.weight", "conv1.weight"),
        ("pre_layrnorm.weight", "ln_pre.weight"),
        ("pre_layrnorm.bias", "ln_pre.bias"),
        ("post_layernorm.weight", "ln_post.weight"),
        ("post_layernorm.bias", "ln_post.bias"),
    ):
        found[prefix + theirs] = state[f"vision_model.{ours}"]
    found[f"{prefix}proj"] = state["visual_projection.weight"].T
    for number in range(layers):
        block, target = f"vision_model.encoder.layers.{number}.", f"{prefix}transformer.resblocks.{number}."
        for part in ("weight", "bias"):
            found[f"{target}attn.in_proj_{part}"] = torch.cat([state[f"{block}self_attn.{each}_proj.{part}"] for each in "qkv"])
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                found[f"{target}{theirs}.{part}"] = state[f"{block}{ours}.{part}"]
    return found
