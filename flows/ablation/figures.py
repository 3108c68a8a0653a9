"""Figures of a cell: against the true object where it is known, and of the pictures alone; the same views for all cells."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreampolish.metrics.judge import AlignmentScorer, load_alignment
from dreampolish.metrics.retrieval import candidate_texts, right_texts
from dreampolish.scene.pictures import read_picture
from flows.benchmark.truth import SHOWN, SIZE, Truth, compared, novel_cameras, rendered
from schemas.artifacts import Artifact, ReferenceArtifact
from stages.results.files import StoredFiles
from stages.results.surfaces import View, ViewableResult

BACK_DEG = 90.0
"""From this azimuth on, a view does not see what the reference shows."""


@dataclass(frozen=True)
class Judge:
    """The embedded judge and what it may take a picture for: the prompts, then names; right: which texts fit each prompt."""

    scorer: AlignmentScorer
    prompts: tuple[str, ...]
    texts: Float[Tensor, "n e"]
    right: Bool[Tensor, "p n"]


def judge_from_folder(folder: Path, prompts: tuple[str, ...], names: tuple[str, ...]) -> Judge:
    """prompts: of all subjects of the study; names: of held-out things."""
    scorer, distinct = load_alignment(folder), tuple(dict.fromkeys(prompts))
    texts = scorer.embed_texts(candidate_texts(distinct, names))
    return Judge(scorer, distinct, texts, right_texts(distinct, names))


def figures_of(
    opened: ViewableResult, reference: Artifact, files: StoredFiles, prompt: str, judge: Judge, truth: Truth | None
) -> tuple[dict[str, float], Float[Tensor, "n h w 3"]]:
    """All figures of a result, and its pictures for the contact sheet. Raises ValueError for a result without a surface."""
    views = rendered(opened, novel_cameras(SIZE).to(files.device))
    figures = {} if truth is None else compared(opened, views, truth)
    figures.update(judged_figures(judge, views.rgb, prompt))
    figures.update(picture_figures(views, _reference_colour(reference, files)))
    return figures, views.rgb[list(SHOWN)].cpu()


def judged_figures(judge: Judge, rgb: Float[Tensor, "n h w 3"], prompt: str) -> dict[str, float]:
    """`alignment`: mean cosine with the prompt; `judged_right`: share of views taken for the prompt, or for the same thing, among all
    prompts and names."""
    place = judge.prompts.index(prompt)
    scores = judge.scorer.embed_images(rgb.cpu().permute(0, 3, 1, 2)) @ judge.texts.T
    taken = judge.right[place][scores.argmax(dim=1)]
    return {"alignment": float(scores[:, place].mean()), "judged_right": float(taken.float().mean())}


def picture_figures(views: View, reference_colour: Float[Tensor, " 3"]) -> dict[str, float]:
    """Figures of pictures alone, on pixels that are covered whole.

    saturation: mean of (max - min) / max over the channels. grain: mean absolute difference of grey values between neighbours, which
    shading adds to. colour_drift: distance in RGB between the mean colour of the views from behind and the reference's.
    """
    solid = views.alpha > 0.99
    if not bool(solid.any()):
        return {}
    colours = views.rgb[solid]
    highest = colours.max(dim=-1).values
    saturation = (highest - colours.min(dim=-1).values) / highest.clamp_min(1e-3)
    figures = {"saturation": float(saturation.mean())}
    grey = views.rgb.mean(dim=-1)
    steps = [
        (grey.diff(dim=dim).abs(), solid.narrow(dim, 1, solid.shape[dim] - 1) & solid.narrow(dim, 0, solid.shape[dim] - 1))
        for dim in (1, 2)
    ]
    beside = torch.cat([values[both] for values, both in steps])
    if len(beside) > 0:
        figures["grain"] = float(beside.mean())
    behind = _behind(len(solid))
    if bool(solid[behind].any()):
        drift = views.rgb[behind][solid[behind]].mean(dim=0) - reference_colour.to(views.rgb)
        figures["colour_drift"] = float(drift.norm())
    return figures


def _behind(n_views: int) -> list[int]:
    """Which of the fixed views look from behind."""
    azimuth = novel_cameras(SIZE).azimuth_deg
    return [index for index in range(n_views) if BACK_DEG <= float(azimuth[index]) % 360 <= 360 - BACK_DEG]


def _reference_colour(reference: Artifact, files: StoredFiles) -> Float[Tensor, " 3"]:
    """Mean colour of the object in the reference picture."""
    if not isinstance(reference, ReferenceArtifact):
        raise TypeError(f"a {reference.stage} artifact is no reference")
    rgba = read_picture(files.locate(reference, reference.image_rgba))
    solid = rgba[..., 3] > 0.99
    return rgba[..., :3][solid].mean(dim=0) if bool(solid.any()) else torch.ones(3)
