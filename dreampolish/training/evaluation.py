"""Held-out numbers of the embedded priors, each beside the baseline that it must beat.

Pictures here are (n, 3, H, W) in [0, 1]. A reported figure is a mean over held-out objects' pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.metrics.pictures import psnr, ssim
from dreampolish.priors.estimators.normals import DiffusionNormalPrior
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import ImageTextScorer
from dreampolish.priors.text.prior import DiffusionTextPrior
from dreampolish.priors.view import DiffusionViewPrior

TEXT_SHEET = (
    "a red armchair",
    "a wooden table",
    "a yellow car",
    "a couch",
    "a blue bed",
    "a green lamp",
    "a white piano",
    "a black office chair",
    "a purple sofa",
    "an orange truck",
    "a pink bicycle",
    "a teal wardrobe",
    "a grey armchair, side view",
    "a wooden chair, back view",
    "a red car, side view",
    "a blue couch, front view",
    "a yellow teapot",
    "an automobile",
    "a television",
    "a bike",
    "a potted plant",
    "a beige stool",
    "a brown bookcase",
    "a red bus",
    "a white bathtub",
    "a black camera",
    "a green mug",
    "a wooden bench",
    "a purple airplane",
    "a pink toaster",
    "a turquoise desk",
    "a violet chair",
)
"""32 prompts: common things, colours on things that rarely carry them, synonyms, view words."""

UNSEEN_PAIRS = (
    "a blue rabbit",
    "a pink cat",
    "a red dog",
    "a purple horse",
    "a blue tree",
    "a red plant",
    "a red bush",
    "a yellow rock",
    "a wooden sofa",
    "a wooden lamp",
    "a wooden vase",
    "a wooden bed",
    "a wooden bus",
    "a wooden bathtub",
    "a wooden truck",
    "a wooden bicycle",
)
"""16 prompts whose two words no caption of the training data held together: natural things keep their colours there and no word names
them, and "wooden" goes with a few things only (`data.vocabulary`)."""


RENEWED = 1.0
"""DDIM's eta of all samples."""


def mean_scores(found: Float[Tensor, "n 3 h w"], true: Float[Tensor, "n 3 h w"], prefix: str) -> dict[str, float]:
    """Mean PSNR (dB, at most 100 for a picture) and SSIM against the true pictures, as `<prefix>psnr` and `<prefix>ssim`."""
    one, other = found.permute(0, 2, 3, 1), true.permute(0, 2, 3, 1)
    return {f"{prefix}psnr": float(psnr(one, other).clamp(max=100).mean()), f"{prefix}ssim": float(ssim(one, other).mean())}


@torch.no_grad()
def reconstruction_scores(space: LatentSpace, pictures: Float[Tensor, "n 3 h w"], prefix: str) -> dict[str, float]:
    """Encoding and decoding again."""
    return mean_scores(space.decode(space.encode(pictures)), pictures, prefix)


@dataclass(frozen=True)
class ViewTrial:
    """Held-out pairs: references, targets, poses, and the mean training picture of each target's class and azimuth."""

    references: Float[Tensor, "n 3 h w"]
    targets: Float[Tensor, "n 3 h w"]
    pose: Float[Tensor, "n 4"]
    class_means: Float[Tensor, "n 3 h w"]


def view_scores(
    prior: DiffusionViewPrior, trial: ViewTrial, guidance_scale: float, steps: int, generator: torch.Generator
) -> tuple[dict[str, float], Float[Tensor, "n 3 h w"]]:
    """PSNR and SSIM of sampled views, of one-step views, of copying the reference, and of the class's mean picture; the sampled views.

    One step without guidance gives about the mean of what the prior holds possible: less sharp, nearer in squared error.
    """
    sampled, means = (
        torch.cat(
            [
                prior.sample(
                    reference=prior.condition(reference[None]),
                    pose=pose[None],
                    guidance_scale=scale,
                    steps=n_steps,
                    renewed=RENEWED,
                    generator=generator,
                )
                for reference, pose in zip(trial.references, trial.pose, strict=True)
            ]
        )
        for scale, n_steps in ((guidance_scale, steps), (1.0, 1))
    )
    scores = mean_scores(sampled, trial.targets, "") | mean_scores(means, trial.targets, "one_step_")
    scores |= mean_scores(trial.references, trial.targets, "copy_")
    return scores | mean_scores(trial.class_means, trial.targets, "class_mean_"), sampled


def angular_errors(
    found: Float[Tensor, "n 3 h w"], true: Float[Tensor, "n 3 h w"], mask: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, " k"]:
    """Angles in degrees between unit normals on the mask."""
    crossed = torch.linalg.cross(found, true, dim=1).norm(dim=1)
    angles = torch.rad2deg(torch.atan2(crossed, (found * true).sum(dim=1)))
    return angles[mask[:, 0] > 0.5]


def normal_scores(
    prior: DiffusionNormalPrior,
    pictures: Float[Tensor, "n 3 h w"],
    normals: Float[Tensor, "n 3 h w"],
    mask: Float[Tensor, "n 1 h w"],
    steps: int,
    generator: torch.Generator,
) -> tuple[dict[str, float], Float[Tensor, "n 3 h w"]]:
    """Mean and median angular error (degrees) of estimates and of normals that all face the viewer; and the estimates."""
    chunks = [prior.estimate(some, steps, generator) for some in pictures.split(16)]
    estimated = torch.cat(chunks)
    facing = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand_as(normals)
    own, baseline = angular_errors(estimated, normals, mask), angular_errors(facing, normals, mask)
    return {
        "mean_deg": float(own.mean()),
        "median_deg": float(own.median()),
        "facing_mean_deg": float(baseline.mean()),
        "facing_median_deg": float(baseline.median()),
    }, estimated


def text_sheet(
    prior: DiffusionTextPrior, prompts: Sequence[str], guidance_scale: float, steps: int, generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    """One picture a prompt."""
    empty = prior.embed([""])
    chunks = [list(prompts[start : start + 8]) for start in range(0, len(prompts), 8)]
    pictures = [
        prior.sample(
            text=prior.embed(chunk),
            negative=empty,
            guidance_scale=guidance_scale,
            steps=steps,
            renewed=RENEWED,
            generator=generator,
        )
        for chunk in chunks
    ]
    return torch.cat(pictures)


def ranked_first(scorer: ImageTextScorer, pictures: Float[Tensor, "n 3 h w"], prompts: Sequence[str]) -> float:
    """Share of pictures whose own prompt, of all prompts given, the judge finds nearest; chance is 1 / n."""
    likeness = scorer.embed_images(pictures) @ scorer.embed_texts(prompts).T
    return float((likeness.argmax(dim=1) == torch.arange(len(prompts))).float().mean())
