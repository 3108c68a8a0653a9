"""ImageDream's network on diffusers' U-Net: attention over all views of a set, cameras in the time embedding, a picture's tokens.

Source: ImageDream (arXiv:2312.02201) and MVDream (arXiv:2308.16512); the folder layout is that of the public conversion, whose U-Net
keeps the names of the latent-diffusion code and calls itself MultiViewUNetModel.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dreampolish.priors.folders.architectures import DIFFUSERS_BASE, refuse_other_tensors
from dreampolish.priors.folders.original import UNET
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.folders.weights import Tensors, tensors_of

CLASS = "MultiViewUNetModel"
RESAMPLER, CAMERA = "image_embed.", "camera_embed."
HEAD_WIDTH = 64
"""Of the picture tokens' attention (source: ImageDream's Resampler)."""


class SetAttention:
    """Self-attention over the tokens of all views of a set."""

    def __init__(self, network: "MultiviewUnet") -> None:
        self._network, self._plain = network, AttnProcessor2_0()

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **unused: Any
    ) -> Tensor:
        """hidden_states (B F, N, D), the views of a set one after the other."""
        length, n_views = hidden_states.shape[1], self._network.n_views
        joined = hidden_states.unflatten(0, (-1, n_views)).flatten(1, 2)
        attended: Tensor = self._plain(attn, joined)
        return attended.unflatten(1, (n_views, length)).flatten(0, 1)


class PictureAttention(nn.Module):
    """Cross-attention to words plus cross-attention to the picture's tokens, which stand behind the words, by projections of its own."""

    def __init__(self, context_dim: int, inner_dim: int, n_tokens: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context_dim, inner_dim, bias=False)
        self.to_v_ip = nn.Linear(context_dim, inner_dim, bias=False)
        self._n_tokens = n_tokens

    def forward(self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **unused: Any) -> Tensor:
        """hidden_states (B, N, D); encoder_hidden_states (B, words + n_tokens, E)."""
        words, picture = encoder_hidden_states[:, : -self._n_tokens], encoder_hidden_states[:, -self._n_tokens :]
        queries = _heads(attn, attn.to_q(hidden_states))
        told = functional.scaled_dot_product_attention(queries, _heads(attn, attn.to_k(words)), _heads(attn, attn.to_v(words)))
        keys, values = _heads(attn, self.to_k_ip(picture)), _heads(attn, self.to_v_ip(picture))
        shown = functional.scaled_dot_product_attention(queries, keys, values)
        return attn.to_out[1](attn.to_out[0]((told + shown).transpose(1, 2).flatten(2)))


def _heads(attn: Attention, states: Tensor) -> Tensor:
    return states.unflatten(2, (attn.heads, -1)).transpose(1, 2)


class MultiviewUnet(nn.Module):
    """The U-Net with its camera and picture parts.

    camera_dim: numbers of a camera. picture_dim: width of the picture tower's states; n_tokens: picture tokens that are made of them.
    """

    def __init__(self, config: Mapping[str, Any], picture_dim: int) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_config(dict(unet_config(config)))
        width = int(config["model_channels"]) * 4
        context = int(config["context_dim"])
        self.camera_embed = nn.Sequential(nn.Linear(int(config["camera_dim"]), width), nn.SiLU(), nn.Linear(width, width))
        n_tokens = int(config["ip_dim"])
        self.image_embed = IPAdapterPlusImageProjection(
            embed_dims=picture_dim,
            output_dims=context,
            hidden_dims=context,
            depth=4,
            dim_head=HEAD_WIDTH,
            heads=12,
            num_queries=n_tokens,
        )
        self.n_views = 1
        processors: dict[str, Any] = {}
        for name in self.unet.attn_processors:
            attention = self.unet.get_submodule(name.removesuffix(".processor"))
            inner = attention.to_q.out_features
            crosses = name.endswith("attn2.processor")
            processors[name] = PictureAttention(context, inner, n_tokens) if crosses else SetAttention(self)
        self.unet.set_attn_processor(processors)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        found: torch.dtype = next(self.parameters()).dtype
        return found

    def forward(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        words: Float[Tensor, "b l d"],
        picture: Float[Tensor, "b t e"],
        cameras: Float[Tensor, "b 16"],
        n_views: int,
    ) -> Float[Tensor, "b c m n"]:
        """What it predicts for sets of n_views, one after the other in the batch. cameras of zeros: a view without one."""
        self.n_views = n_views
        dtype = self.dtype
        context = torch.cat([words.to(dtype), self.image_embed(picture.to(dtype))], dim=1)
        added = self.camera_embed(cameras.to(dtype))
        found: Tensor = self.unet(noisy.to(dtype), timesteps, encoder_hidden_states=context, class_labels=added).sample
        return found.to(noisy.dtype)


def unet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """diffusers' config of the latent-diffusion code's one; the camera takes the place of a class in the time embedding."""
    factors = [int(each) for each in config["channel_mult"]]
    channels = [int(config["model_channels"]) * factor for factor in factors]
    attended = [2**level in config["attention_resolutions"] for level in range(len(factors))]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": int(config["image_size"]),
        "in_channels": int(config["in_channels"]),
        "out_channels": int(config["out_channels"]),
        "block_out_channels": channels,
        "layers_per_block": int(config["num_res_blocks"]),
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attended],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attended)],
        "cross_attention_dim": int(config["context_dim"]),
        "attention_head_dim": [each // int(config["num_head_channels"]) for each in channels],
        "use_linear_projection": True,
        "class_embed_type": "identity",
    }


def load_multiview_unet(source: PriorSource, picture_dim: int) -> MultiviewUnet:
    """The `unet` of a folder. picture_dim: width of its picture tower's states. PriorError for other tensors than its config says."""
    found, config = check_multiview_unet(source, picture_dim)
    network = MultiviewUnet(config, picture_dim)
    state = {name: tensor for path in found.files for name, tensor in load_file(path).items()}
    network.load_state_dict(renamed_state(state, config))
    return network.float().eval().requires_grad_(False)


def check_multiview_unet(source: PriorSource, picture_dim: int) -> tuple[Tensors, dict[str, Any]]:
    """(headers, config) of a folder's `unet`; no tensor is read. PriorError for other tensors than its config says."""
    folder = source.component("unet")
    config = json_object(folder / "config.json")
    if not config.get("ip_dim"):
        raise PriorError(f"{folder} is MVDream's, which sees words only: take ImageDream's, which sees a picture")
    found = tensors_of(folder, DIFFUSERS_BASE)
    try:
        with torch.device("meta"):
            network = MultiviewUnet(config, picture_dim)
            headers = {name: torch.empty(shape) for name, shape in found.shapes.items()}
            renamed = renamed_state(headers, config)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PriorError(f"{folder} holds no {CLASS}, or not all of it: {error} is missing or wrong; fetch it again") from None
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    refuse_other_tensors(folder, expected, {name: tuple(value.shape) for name, value in renamed.items()})
    return found, config


def renamed_state(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The file's tensors under this module's names."""
    apart = (RESAMPLER, CAMERA)
    plain = {f"{UNET}{name}": value for name, value in state.items() if not name.startswith(apart)}
    found = {}
    for name, value in convert_ldm_unet_checkpoint(plain, unet_config(config) | {"class_embed_type": None}).items():
        parts = name.split(".")
        if parts[-2] in ("to_k_ip", "to_v_ip"):
            parts.insert(-2, "processor")
        found["unet." + ".".join(parts)] = value
    found |= {name: value for name, value in state.items() if name.startswith(CAMERA)}
    for name, value in state.items():
        if name.startswith(RESAMPLER):
            found |= _resampler_tensors(name, value)
    return found


_RESAMPLER_PARTS = {"0.norm1": "ln0", "0.norm2": "ln1", "1.0": "ff.0", "1.1": "ff.1.net.0.proj", "1.3": "ff.1.net.2"}
"""Layers of a block of the picture tokens: ImageDream's name and diffusers'."""


def _resampler_tensors(name: str, value: Tensor) -> dict[str, Tensor]:
    if ".layers." not in name:
        return {name: value}
    head, _, rest = name.partition(".layers.")
    number, _, inside = rest.partition(".")
    place = f"{head}.layers.{number}."
    if inside == "0.to_kv.weight":
        keys, values = value.chunk(2)
        return {f"{place}attn.to_k.weight": keys, f"{place}attn.to_v.weight": values}
    if inside == "0.to_q.weight":
        return {f"{place}attn.to_q.weight": value}
    if inside == "0.to_out.weight":
        return {f"{place}attn.to_out.0.weight": value}
    part, _, kind = inside.rpartition(".")
    return {f"{place}{_RESAMPLER_PARTS.get(part, part)}.{kind}": value}
