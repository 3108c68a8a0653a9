"""Priors of the real classes with tiny random networks, and a whole run as small as it gets: a disc as the user's picture."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image, ImageDraw
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
)

from dreampolish.priors.autoencoder import PatchAutoencoder
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import NoiseSchedule
from dreampolish.priors.view import DiffusionViewPrior, LatentPatchContext, PoseProjection
from dreampolish.training.diffusion import UnetShape, build_schedule, build_unet
from dreampolish.training.folders import write_prior
from flows.runs.create import new_run
from schemas.runs import RunRecord

CHANNELS, CONTEXT = 4, 16

PROMPT = "a red chair"
SETTINGS = (
    "device=cpu",
    "threads=1",
    "checkpoint_interval=2",
    "reference.size=32",
    "nerf.steps=4",
    "neus.steps=4",
    "neus.conversion_steps=4",
    "dmtet.steps=4",
    "dmtet.tet_resolution=12",
    "dmtet.color_fit_steps=2",
    "polish.steps=4",
    "polish.color_fit_steps=2",
    "texture.steps=4",
    "export.triangle_budget=200",
    "export.texture_size=128",
    "export.turntable_views=2",
    "export.turntable_size=16",
    *(f"{name}.preview.size=16" for name in ("nerf", "neus", "dmtet", "polish", "texture", "export")),
    *(f"{name}.preview.n_views=2" for name in ("nerf", "neus", "dmtet", "polish", "texture", "export")),
    *(f"{name}.preview.interval=2" for name in ("nerf", "neus", "dmtet", "polish", "texture")),
)
"""On top of the preset `smoke`. Four steps and a checkpoint every second one: one in the middle, one at the end."""


def tiny_unet(in_channels: int, pose_labels: bool) -> UNet2DConditionModel:
    """A U-Net of two resolutions whose last layer is not zero."""
    shape = UnetShape(
        in_channels=in_channels,
        out_channels=CHANNELS,
        sample_size=4,
        block_channels=(16, 16),
        attended=(False, True),
        heads=2,
        context_dim=CONTEXT,
        pose_labels=pose_labels,
    )
    unet = build_unet(shape, seed=0)
    with torch.no_grad():
        unet.conv_out.weight.normal_(generator=torch.Generator().manual_seed(1), std=0.1)
    return unet.eval().requires_grad_(False)


def tiny_space() -> LatentSpace:
    """8-pixel pictures with patches of 2."""
    autoencoder = PatchAutoencoder(latent_channels=CHANNELS, patch_size=2, hidden_channels=8, sample_size=8)
    basis = torch.linalg.qr(torch.randn(12, CHANNELS, generator=torch.Generator().manual_seed(2))).Q.T
    autoencoder.set_basis(basis, torch.ones(CHANNELS))
    autoencoder.eval().requires_grad_(False)
    return LatentSpace(autoencoder, NoiseSchedule(build_schedule().alphas_cumprod, "v_prediction"), 8)


class CountingTower:
    """A text tower that writes the length of a prompt into its tokens."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Prompts to (B, L, CONTEXT) states, L the longest prompt's words plus one."""
        self.calls.append(list(prompts))
        lengths = [len(prompt.split()) + 1 for prompt in prompts]
        states = torch.zeros(len(prompts), max(lengths), CONTEXT)
        mask = torch.zeros(len(prompts), max(lengths), dtype=torch.bool)
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            states[row, :length] = torch.sin(torch.arange(CONTEXT) * (1.0 + len(prompt)))
            mask[row, :length] = True
        return TextEmbedding(states, mask)

    def to(self, device: torch.device | str) -> None:
        """Nothing to move."""


def tiny_view_prior() -> DiffusionViewPrior:
    """A view prior over 8-pixel pictures, patches of 2 latents as context."""
    space = tiny_space()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        projection = PoseProjection(context_dim=CHANNELS * 4, output_dim=CONTEXT, tokens=4, context="latent_patches", patch=2)
        projection.eval().requires_grad_(False)
    return DiffusionViewPrior(space, tiny_unet(2 * CHANNELS, pose_labels=True), projection, LatentPatchContext(2))


def write_text_encoder(folder: Path) -> None:
    """A BERT of one layer with a twelve-word vocabulary, tokenizer beside it."""
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "chair", "table", "front", "view"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=12).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=CONTEXT,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)


def write_clip(folder: Path) -> Path:
    """A CLIP of one layer with random weights and a tokenizer of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16).save_pretrained(folder)
    layer = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 8}
    text = {
        **layer,
        "vocab_size": len(words),
        "max_position_embeddings": 16,
        "eos_token_id": len(words) - 1,
        "bos_token_id": 52,
    }
    config = CLIPConfig(text_config=text, vision_config={**layer, "image_size": 16, "patch_size": 8}, projection_dim=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def write_depth(folder: Path, kind: str) -> DepthAnythingForDepthEstimation:
    """Depth Anything of four layers, with its preprocessor."""
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        depth_estimation_type=kind,
        max_depth=1,
    )
    network = DepthAnythingForDepthEstimation(config).eval()
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    return network


def write_priors(home: Path) -> tuple[str, ...]:
    """Tiny text, view and normal priors under `home`; the settings that name them. The judge stays the embedded one."""
    write_text_encoder(home / "words")
    write_prior(home / "space", {"vae": tiny_space().autoencoder}, {})
    references = {"vae": "../space/vae", "text_encoder": "../words", "tokenizer": "../words"}
    view, schedule = tiny_view_prior(), build_schedule()
    write_prior(home / "text", {"unet": tiny_unet(CHANNELS, pose_labels=False), "scheduler": schedule}, references)
    write_prior(home / "normals", {"unet": tiny_unet(2 * CHANNELS, pose_labels=False), "scheduler": schedule}, references)
    components = {"unet": view.unet, "cc_projection": view.projection, "scheduler": schedule}
    write_prior(home / "view", components, {"vae": "../space/vae"})
    return tuple(f"priors.{name}.source={home / name}" for name in ("text", "view", "normals"))


def write_picture(path: Path) -> Path:
    """A shaded disc on a transparent ground."""
    picture = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((8, 8, 40, 40), fill=(200, 40, 30, 255))
    draw.ellipse((16, 14, 28, 26), fill=(230, 120, 90, 255))
    picture.save(path)
    return path


def tiny_run(store: Path, priors: tuple[str, ...], picture: Path) -> RunRecord:
    """The record of a new tiny run in a store; every run made with the same arguments has the same fingerprints."""
    torch.set_num_threads(1)
    return new_run(store=store, prompt=PROMPT, preset="smoke", overrides=[*SETTINGS, *priors], image=picture)
