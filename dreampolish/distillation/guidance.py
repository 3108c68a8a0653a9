"""Guidance of a renderer by the frozen priors: prompts per view, and one loss per prior over a batch of renders."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.distillation.perp_neg import RIVALS, Rival
from dreampolish.distillation.scores import Noised, TextConditions, distil, text_scores, view_scores
from dreampolish.distillation.weights import ScoreWeights, SplitWeights
from dreampolish.priors.protocols import TextPrior, VariationalDomain, ViewCondition, ViewPrior
from dreampolish.scene.cameras import Cameras, view_words
from dreampolish.scene.pictures import resize

VIEWS = ("front view", "side view", "back view", "overhead view")
"""Words that a prompt gets for a view (source: DreamFusion)."""


class PromptEmbeddings:
    """A prompt's token states for every view word, embedded once.

    front_deg: half the width of the sectors called front and back (cameras.view_words). perp_neg_weight: of Perp-Neg; 0: off.
    """

    def __init__(self, prior: TextPrior, prompt: str, negative: str, front_deg: float, perp_neg_weight: float) -> None:
        self._front_deg, self._perp_neg_weight = front_deg, perp_neg_weight
        texts = [f"{prompt}, {words}" for words in VIEWS] + [prompt, "", negative]
        self._all = prior.embed(texts)

    def conditions(self, cameras: Cameras) -> TextConditions:
        """Embeddings for a batch of cameras."""
        angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        rows = [VIEWS.index(view_words(azimuth, elevation, self._front_deg)) for azimuth, elevation in angles]
        n = len(rows)
        prompt, plain, empty, negative = (self._all.rows(each) for each in (rows, [4] * n, [5] * n, [6] * n))
        return TextConditions(
            prompt=prompt,
            empty=empty,
            negative=negative,
            plain=plain,
            rival=self._rival(rows) if self._perp_neg_weight > 0 else None,
        )

    def _rival(self, rows: list[int]) -> Rival:
        """The prompts that views of these words are kept away from."""
        rivals = [RIVALS[VIEWS[row]] for row in rows]
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

    def predict(noised: Noised) -> dict[str, Tensor]:
        return text_scores(
            prior=prior,
            variational=variational,
            noised=noised,
            text=text,
            world_from_camera=cameras.world_from_camera,
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

    def predict(noised: Noised) -> dict[str, Tensor]:
        return view_scores(prior, noised, reference, pose)

    images = images_at_prior(rgb, prior.image_size)
    return GuidanceStep(
        *distil(prior=prior, images=images, t_range=t_range, predict=predict, weights=weights, generator=generator), None
    )


def mean_norm(delta: Float[Tensor, "b c m n"]) -> float:
    """Root mean square of a score difference, for logs."""
    return float(delta.detach().square().mean().sqrt())
