"""How each embedded U-Net is made: its network, what a batch is, what the finished folder holds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dreampolish.data.batches import RenderedViews
from dreampolish.priors.folders.loading import load_packaged_text_encoder
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.sampling import NoiseSchedule
from dreampolish.priors.text.towers import TextTower
from dreampolish.priors.view import LatentPatchContext, PoseProjection
from dreampolish.training.diffusion import (
    BatchSource,
    Denoiser,
    UnetShape,
    build_schedule,
    build_unet,
    prepare_for_training,
    start_from,
)
from dreampolish.training.folders import TEXT_ENCODER_REFERENCE
from dreampolish.training.normals import NormalBatches, normals_denoiser
from dreampolish.training.text import RememberingTower, TextBatches, text_denoiser
from dreampolish.training.view import ViewBatches, view_denoiser

REMEMBERED_PROMPTS = 12000
"""Prompts whose token states the text training keeps in memory."""
CONTEXT_PATCH = 4
"""Side, in latent places, of the reference's patches that become the view prior's context tokens."""


@dataclass(frozen=True)
class Size:
    """What may be chosen of a U-Net: channels by resolution, which of them attend, heads, the seed of its weights."""

    block_channels: tuple[int, ...]
    attended: tuple[bool, ...]
    heads: int
    seed: int


@dataclass(frozen=True)
class Draws:
    """Pictures a batch, and the share of dropped conditions."""

    batch: int
    unconditional: float


@dataclass(frozen=True)
class Recipe:
    """A training made ready: the trained modules by component name, the network as a function, batches, references of the folder."""

    modules: dict[str, nn.Module]
    denoiser: Denoiser
    draw: BatchSource
    references: dict[str, str]


def latent_space(autoencoder: Any) -> LatentSpace:
    """The space that all embedded priors share: the given autoencoder under the cosine schedule."""
    schedule = NoiseSchedule(build_schedule().alphas_cumprod.float(), "v_prediction")
    return LatentSpace(autoencoder, schedule, int(autoencoder.config.sample_size))


def _shape(space: LatentSpace, size: Size, inputs: int, context_dim: int, pose_labels: bool) -> UnetShape:
    channels, side, _ = space.latent_shape
    return UnetShape(
        in_channels=inputs * channels,
        out_channels=channels,
        sample_size=side,
        block_channels=size.block_channels,
        attended=size.attended,
        heads=size.heads,
        context_dim=context_dim,
        pose_labels=pose_labels,
    )


def _text_tower(device: torch.device) -> tuple[TextTower, int]:
    tower = TextTower(*load_packaged_text_encoder(TEXT_ENCODER_REFERENCE))
    tower.to(device)
    return tower, int(tower.encoder.config.hidden_size)


def text_recipe(views: RenderedViews, space: LatentSpace, size: Size, draws: Draws) -> Recipe:
    """Pictures from captions."""
    tower, width = _text_tower(views.device)
    unet = build_unet(_shape(space, size, 1, width, pose_labels=False), size.seed)
    prepare_for_training(unet, views.device)
    remembering = RememberingTower(tower, REMEMBERED_PROMPTS)
    draw = TextBatches(
        draw=views.text_batch, space=space, tower=remembering, batch=draws.batch, unconditional=draws.unconditional
    )
    references = {"vae": "../autoencoder", "text_encoder": TEXT_ENCODER_REFERENCE, "tokenizer": TEXT_ENCODER_REFERENCE}
    return Recipe({"unet": unet}, text_denoiser(unet), draw, references)


def normals_recipe(views: RenderedViews, space: LatentSpace, size: Size, draws: Draws, start: nn.Module | None) -> Recipe:
    """Normal pictures beside pictures; nothing is dropped, since there is no guidance.

    start: the view prior's U-Net, whose reference channels become the picture's and which knows objects already, or None.
    """
    tower, width = _text_tower(views.device)
    unet = build_unet(_shape(space, size, 2, width, pose_labels=False), size.seed)
    if start is not None:
        channels = space.latent_shape[0]
        start_from(unet, start, [*range(channels, 2 * channels), *range(channels)])
    prepare_for_training(unet, views.device)
    draw = NormalBatches(views.normal_batch, space, draws.batch)
    references = {"vae": "../autoencoder", "text_encoder": TEXT_ENCODER_REFERENCE, "tokenizer": TEXT_ENCODER_REFERENCE}
    return Recipe({"unet": unet}, normals_denoiser(unet, tower.embed([""])), draw, references)


def view_recipe(
    views: RenderedViews, space: LatentSpace, size: Size, draws: Draws, context_dim: int, start: nn.Module | None
) -> Recipe:
    """Views beside references; `start`: the text prior's U-Net, whose weights it begins with (as Zero123 begins with
    Stable Diffusion's), or None. context_dim: the U-Net's cross-attention width."""
    unet = build_unet(_shape(space, size, 2, context_dim, pose_labels=True), size.seed)
    if start is not None:
        channels = space.latent_shape[0]
        start_from(unet, start, [*range(channels), *[None] * channels])
    prepare_for_training(unet, views.device)
    channels, side, _ = space.latent_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(size.seed + 1)
        tokens = (side // CONTEXT_PATCH) ** 2
        projection = PoseProjection(
            context_dim=channels * CONTEXT_PATCH**2,
            output_dim=context_dim,
            tokens=tokens,
            context="latent_patches",
            patch=CONTEXT_PATCH,
        )
    projection.train().to(views.device)
    context = LatentPatchContext(CONTEXT_PATCH)
    draw = ViewBatches(
        draw=views.view_batch, space=space, context=context, batch=draws.batch, unconditional=draws.unconditional
    )
    modules: dict[str, nn.Module] = {"unet": unet, "cc_projection": projection}
    return Recipe(modules, view_denoiser(unet, projection), draw, {"vae": "../autoencoder"})
