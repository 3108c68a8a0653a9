"""Guidance of a renderer by the frozen priors: prompts per view, and one loss per prior over a batch of renders."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.distillation.perp_neg import RIVALS, Blend, Rival, blend_at
from dreampolish.priors.distillation.scores import Noised, TextConditions, distil, text_scores, view_scores
from dreampolish.priors.distillation.weights import ScoreWeights, SplitWeights
from dreampolish.priors.protocols import TextEmbedding, TextPrior, VariationalDomain, ViewCondition, ViewPrior
from dreampolish.scene.cameras import OVERHEAD_DEG, Cameras, view_words
from dreampolish.scene.pictures import resize

VIEWS = ("front view", "side view", "back view", "overhead view")
"""Words that a prompt gets for a view (source: DreamFusion)."""


class PromptEmbeddings:
    """A prompt's token states for every view word, embedded once.

    front_deg: half the width of the sectors called front and back (cameras.view_words). perp_neg_weight: of Perp-Neg; 0: off.
    blended: whether prompts and rivals go over into each other with the azimuth, in place of sectors.
    """

    def __init__(
        self,
        prior: TextPrior,
        prompt: str,
        negative: str,
        front_deg: float,
        perp_neg_weight: float,
        *,
        blended: bool = False,
    ) -> None:
        self._front_deg, self._perp_neg_weight, self._blended = front_deg, perp_neg_weight, blended
        texts = [f"{prompt}, {words}" for words in VIEWS] + [prompt, "", negative]
        self._all = prior.embed(texts)

    def conditions(self, cameras: Cameras) -> TextConditions:
        """Embeddings for a batch of cameras."""
        angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        rows = [VIEWS.index(view_words(azimuth, elevation, self._front_deg)) for azimuth, elevation in angles]
        n = len(rows)
        prompt, plain, empty, negative = (self._all.rows(each) for each in (rows, [4] * n, [5] * n, [6] * n))
        rivals: tuple[Rival, ...] = ()
        if self._blended:
            blends = [
                blend_at(azimuth, elevation, float(OVERHEAD_DEG))
                for azimuth, elevation in zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
            ]
            prompt = self._mixed(blends)
            rivals = tuple(self._rival([blend.rivals[number] for blend in blends]) for number in (0, 1))
        elif self._perp_neg_weight > 0:
            rivals = (self._rival([RIVALS[VIEWS[row]] for row in rows]),)
        rivals = rivals if self._perp_neg_weight > 0 else ()
        return TextConditions(prompt=prompt, empty=empty, negative=negative, plain=plain, rivals=rivals)

    def _mixed(self, blends: list[Blend]) -> TextEmbedding:
        """Token states between those of two view words each."""
        first, second = (self._all.rows([VIEWS.index(blend.words[number]) for blend in blends]) for number in (0, 1))
        return first.mixed(second, torch.tensor([blend.share for blend in blends], device=first.states.device))

    def _rival(self, rivals: Sequence[tuple[str, float]]) -> Rival:
        """The prompts that views are kept away from, and how strongly: words and weight of each view."""
        weights = [self._perp_neg_weight * weight for _, weight in rivals]
        text = self._all.rows([VIEWS.index(words) for words, _ in rivals])
        return Rival(text, torch.tensor(weights, device=text.states.device))


@dataclass(frozen=True)
class GuidanceStep:
    """What a guidance step was made of: its loss, latents with noise, predictions and text embeddings (None for the view prior)."""

    loss: Float[Tensor, ""]
    noised: Noised
    scores: dict[str, Float[Tensor, "b c m n"]]
    text: TextConditions | None


def images_at_prior(rgb: Float[Tensor, "b h w 3"], size: int) -> Float[Tensor, "b 3 size size"]:
    """Renders resized to a prior's picture size, channels first; differentiable."""
    return resize(rgb, size).permute(0, 3, 1, 2)


def text_guidance(
    prior: TextPrior,
    prompts: PromptEmbeddings,
    variational: VariationalDomain | None,
    rgb: Float[Tensor, "b h w 3"],
    cameras: Cameras,
    t_range: tuple[float, float],
    weights: ScoreWeights | SplitWeights,
    generator: torch.Generator,
) -> GuidanceStep:
    """Distil the text prior into renders; t_range in fractions of the training timesteps."""
    text = prompts.conditions(cameras)

    def predict(noised: Noised, rows: slice) -> dict[str, Tensor]:
        return text_scores(
            prior=prior,
            variational=variational,
            noised=noised,
            text=text.rows(rows),
            world_from_camera=cameras.world_from_camera[rows],
            weights=weights,
        )

    images = images_at_prior(rgb, prior.image_size)
    return GuidanceStep(
        *distil(prior=prior, images=images, t_range=t_range, predict=predict, weights=weights, generator=generator), text
    )


def view_guidance(
    prior: ViewPrior,
    reference: ViewCondition,
    reference_elevation_deg: float,
    rgb: Float[Tensor, "b h w 3"],
    cameras: Cameras,
    t_range: tuple[float, float],
    weights: ScoreWeights | SplitWeights,
    generator: torch.Generator,
) -> GuidanceStep:
    """Distil the view prior into renders: each must look like the reference object from its own pose."""
    pose = prior.pose(cameras.azimuth_deg, cameras.elevation_deg, reference_elevation_deg)

    def predict(noised: Noised, rows: slice) -> dict[str, Tensor]:
        return view_scores(prior, noised, reference, pose[rows])

    images = images_at_prior(rgb, prior.image_size)
    return GuidanceStep(
        *distil(prior=prior, images=images, t_range=t_range, predict=predict, weights=weights, generator=generator), None
    )


def mean_norm(delta: Float[Tensor, "b c m n"]) -> float:
    """Root mean square of a score difference, for logs."""
    return float(delta.detach().square().mean().sqrt())
