"""The network that denoises several views of one object together: a U-Net over each view's latent, joined by attention.

Every view has its noisy or clean latent, two flags, the rays of its pixels, and its own time and pose embedding; wherever the U-Net
attends, the tokens of all views of a set attend to each other (source: MVDream's inflated self-attention), and to the text. The joint
attention's output starts at zero: a fresh network treats each view alone. Clean and noisy views in one set: Viewset Diffusion.

Notation: B sets, V views, C latent channels, m latent side, L text tokens, D their width. Pure torch.
"""

import json
import lzma
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS, CONFIG = "diffusion_pytorch_model.safetensors", "config.json"
CLASS_NAME = "MultiviewNetwork"
RAY_CHANNELS, FLAGS, POSE = 6, 2, 6


@dataclass(frozen=True)
class MultiviewShape:
    """Size of the network. widths: per resolution, halving from the latent's. units: residual blocks going down at each; the two
    lower ones attend. head: width of an attention head. mlp: ratios of the two lower resolutions' feed-forward widths."""

    latent_channels: int = 32
    latent_size: int = 16
    widths: tuple[int, int, int] = (96, 256, 384)
    units: tuple[int, int, int] = (1, 1, 2)
    mlp: tuple[int, int] = (2, 4)
    head: int = 64
    text_width: int = 384
    embedding: int = 384


@dataclass(frozen=True)
class SetCondition:
    """What a set is told. clean, absent (B, V): 1 where a view is given clean, or is not there at all; azimuth_deg, elevation_deg
    (B, V); text (B, L, D) with mask (B, L), True where a token counts."""

    clean: Float[Tensor, "b v"]
    absent: Float[Tensor, "b v"]
    azimuth_deg: Float[Tensor, "b v"]
    elevation_deg: Float[Tensor, "b v"]
    text: Float[Tensor, "b l d"]
    mask: Tensor


def view_rays(azimuth_deg: Tensor, elevation_deg: Tensor, side: int) -> Float[Tensor, "n 6 m m"]:
    """Directions and moments (Plücker) of the rays through a side x side grid of each camera (N,), FOV 20 at its framing distance."""
    a, e = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    backward = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=-1)
    up = torch.linalg.cross(backward, right)
    half = math.tan(math.radians(10.0))
    offset = ((torch.arange(side, device=a.device) + 0.5) / side * 2 - 1) * half
    across, down = offset[None, None, None, :], offset[None, None, :, None]
    direction = right[..., None, None] * across - up[..., None, None] * down - backward[..., None, None]
    direction = functional.normalize(direction.expand(-1, -1, side, side), dim=1)
    eye = (backward * (0.670 / half))[..., None, None].expand_as(direction)
    return torch.cat([direction, torch.linalg.cross(eye, direction, dim=1)], dim=1)


def time_features(timesteps: Tensor, width: int) -> Float[Tensor, "n w"]:
    """Sines and cosines of timesteps, as diffusers' with flip_sin_to_cos."""
    rates = torch.exp(-math.log(10000) * torch.arange(width // 2, device=timesteps.device) / (width // 2))
    angles = timesteps.float()[:, None] * rates[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, scaled and shifted by the embedding between them; starts as the identity (or its 1x1 projection)."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.GroupNorm(16, inputs), nn.GroupNorm(16, outputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Float[Tensor, "n c m m"], embedding: Float[Tensor, "n e"]) -> Float[Tensor, "n o m m"]:
        """N = B V pictures, each with its own embedding."""
        h = self.first(functional.silu(self.first_norm(x)))
        scale, shift = self.modulation(embedding)[..., None, None].chunk(2, dim=1)
        h = self.second(functional.silu(self.second_norm(h) * (1 + scale) + shift))
        return self.skip(x) + h


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys; its output starts at zero."""

    def __init__(self, width: int, context: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(context, 2 * width, bias=False)
        self.query_norm, self.key_norm = nn.RMSNorm(head, eps=1e-6), nn.RMSNorm(head, eps=1e-6)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(
        self, x: Float[Tensor, "b n c"], context: Float[Tensor, "b k d"], bias: Tensor | None
    ) -> Float[Tensor, "b n c"]:
        """bias: (B, 1, 1, K), added to the scores."""
        split = lambda each: each.unflatten(-1, (-1, self.head)).transpose(1, 2)  # noqa: E731
        key, value = (split(each) for each in self.key_value(context).chunk(2, dim=-1))
        query = self.query_norm(split(self.query(x))).to(value.dtype)
        key = self.key_norm(key).to(value.dtype)
        if bias is not None:
            bias = bias.to(value.dtype).expand(-1, query.shape[1], query.shape[2], -1)
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(found.transpose(1, 2).flatten(2))


class JoiningBlock(nn.Module):
    """Attention over all tokens of a set, attention to the text, feed-forward."""

    def __init__(self, width: int, side: int, ratio: int, shape: MultiviewShape) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, 1, side * side, width) * 0.02)
        self.joint_norm, self.text_norm, self.mlp_norm = (nn.LayerNorm(width) for _ in range(3))
        self.joint = Attention(width, width, shape.head)
        self.text = Attention(width, shape.text_width, shape.head)
        narrow = nn.Linear(ratio * width, width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(approximate="tanh"), narrow)
        nn.init.zeros_(narrow.weight)

    def forward(
        self, x: Float[Tensor, "n c m k"], views: int, text: Float[Tensor, "b l d"], bias: Tensor
    ) -> Float[Tensor, "n c m k"]:
        """N = B V; the tokens of each set's views lie one after another."""
        side = x.shape[-1]
        tokens = x.flatten(2).transpose(1, 2).unflatten(0, (-1, views))
        tokens = tokens.flatten(1, 2)
        placed = self.joint_norm(tokens) + self.place.expand(1, views, -1, -1).flatten(1, 2)
        tokens = tokens + self.joint(placed, placed, None)
        tokens = tokens + self.text(self.text_norm(tokens), text, bias)
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        return tokens.unflatten(1, (views, -1)).flatten(0, 1).transpose(1, 2).unflatten(2, (side, side))


class Unit(nn.Module):
    """A residual block, then, where the resolution attends, a joining block."""

    def __init__(self, inputs: int, level: int, shape: MultiviewShape) -> None:
        super().__init__()
        width, side = shape.widths[level], shape.latent_size >> level
        self.residual = ResidualBlock(inputs, width, shape.embedding)
        self.joining = JoiningBlock(width, side, shape.mlp[level - 1], shape) if level > 0 else None

    def forward(self, x: Tensor, embedding: Tensor, views: int, text: Tensor, bias: Tensor) -> Tensor:
        """(N, C, m, m) -> (N, width, m, m)."""
        x = self.residual(x, embedding)
        return x if self.joining is None else self.joining(x, views, text, bias)


class MultiviewNetwork(nn.Module):
    """The v prediction of every view of a set."""

    def __init__(self, shape: MultiviewShape) -> None:
        super().__init__()
        self.shape = shape
        low, middle, deep = shape.widths
        e = shape.embedding
        self.enter = nn.Conv2d(shape.latent_channels + FLAGS + RAY_CHANNELS, low, 3, padding=1)
        self.embed_time = nn.Sequential(nn.Linear(256, e), nn.SiLU(), nn.Linear(e, e))
        self.embed_pose = nn.Sequential(nn.Linear(POSE, e), nn.SiLU(), nn.Linear(e, e))
        self.text_norm = nn.LayerNorm(shape.text_width)
        n = shape.units
        self.down = nn.ModuleList(
            [
                nn.ModuleList([Unit(low, 0, shape) for _ in range(n[0])]),
                nn.ModuleList([Unit(middle, 1, shape) for _ in range(n[1])]),
                nn.ModuleList([Unit(deep, 2, shape) for _ in range(n[2])]),
            ]
        )
        self.shrink = nn.ModuleList(
            [nn.Conv2d(low, middle, 3, stride=2, padding=1), nn.Conv2d(middle, deep, 3, stride=2, padding=1)]
        )
        self.see_rays = nn.ModuleList([nn.Conv2d(RAY_CHANNELS, middle, 1), nn.Conv2d(RAY_CHANNELS, deep, 1)])
        self.up = nn.ModuleList(
            [
                nn.ModuleList([Unit((2 if i == 0 else 1) * low, 0, shape) for i in range(n[0])]),
                nn.ModuleList([Unit((2 if i == 0 else 1) * middle, 1, shape) for i in range(n[1] + 1)]),
            ]
        )
        self.grow = nn.ModuleList([nn.Conv2d(middle, low, 3, padding=1), nn.Conv2d(deep, middle, 3, padding=1)])
        self.leave_norm, self.leave = nn.GroupNorm(16, low), nn.Conv2d(low, shape.latent_channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, latents: Float[Tensor, "b v c m m"], timesteps: Tensor, told: SetCondition) -> Float[Tensor, "b v c m m"]:
        """timesteps: (B, V), 0 for clean and absent views."""
        sets, views = latents.shape[:2]
        side = latents.shape[-1]
        azimuth, elevation = told.azimuth_deg.flatten(), told.elevation_deg.flatten()
        rays = view_rays(azimuth, elevation, side)
        clean, absent = told.clean.flatten(), told.absent.flatten()
        flags = torch.stack([clean, absent], dim=1)[..., None, None].expand(-1, -1, side, side)
        a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
        pose = torch.stack([a.sin(), a.cos(), e.sin(), e.cos(), clean, absent], dim=1)
        embedding = self.embed_time(time_features(timesteps.flatten(), 256)) + self.embed_pose(pose)
        embedding = functional.silu(embedding)
        text = self.text_norm(told.text)
        bias = torch.where(told.mask, 0.0, -1e4)[:, None, None]
        x = torch.cat([latents.flatten(0, 1), flags, rays], dim=1).contiguous(memory_format=torch.channels_last)
        h, kept = self.enter(x), []
        for level, units in enumerate(self.down):
            if level > 0:
                rays = functional.avg_pool2d(rays, 2)
                h = self.shrink[level - 1](h) + self.see_rays[level - 1](rays)
            for unit in units.children():
                h = unit(h, embedding, views=views, text=text, bias=bias)
            kept.append(h)
        for level in (1, 0):
            h = self.grow[level](functional.interpolate(h, scale_factor=2.0, mode="nearest"))
            h = torch.cat([h, kept[level]], dim=1)
            for unit in self.up[level].children():
                h = unit(h, embedding, views=views, text=text, bias=bias)
        h = self.leave(functional.silu(self.leave_norm(h)))
        return h.unflatten(0, (sets, views))


def build_network(shape: MultiviewShape, seed: int) -> MultiviewNetwork:
    """A network with random weights of the given seed."""
    with torch.random.fork_rng(devices=[]):  # modules fill themselves from the global generator
        torch.manual_seed(seed)
        return MultiviewNetwork(shape)


def save_network(network: MultiviewNetwork, folder: Path) -> None:
    """Float16 weights and the shape, in diffusers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().half().cpu().contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"_class_name": CLASS_NAME, **asdict(network.shape)}, indent=2) + "\n")


def load_network(folder: Path) -> MultiviewNetwork:
    """The network of a folder that `save_network` wrote, in float32; its weights may be packed by xz.

    Raises ValueError for another class's folder.
    """
    network = MultiviewNetwork(read_shape(folder / CONFIG))
    packed = folder / f"{WEIGHTS}.xz"
    state = load(lzma.decompress(packed.read_bytes())) if packed.is_file() else load_file(folder / WEIGHTS)
    network.load_state_dict({name: value.float() for name, value in state.items()})
    return network.eval().requires_grad_(False)


def read_shape(path: Path) -> MultiviewShape:
    """The shape that a config file states."""
    fields: dict[str, Any] = json.loads(path.read_text())
    if fields.pop("_class_name", None) != CLASS_NAME:
        raise ValueError(f"{path} does not describe a {CLASS_NAME}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return MultiviewShape(**values)
