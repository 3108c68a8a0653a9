"""From rendered pictures to a distillation loss: noise, predictions, weighted sum, gradient at the latent.

Notation: x pictures (B, 3, H, W) in [0, 1]; z = encode(x); z_t = alpha_t z + sigma_t eps; w(t) = 1 - abar_t = sigma_t^2. The loss
0.5 ||z - stopgrad(z - w delta)||^2 / B has the gradient w delta / B at z (source: threestudio).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

from dreampolish.priors.distillation.perp_neg import Rival, without_rivals
from dreampolish.priors.distillation.weights import ScoreWeights, SplitWeights, needs, weighted_delta
from dreampolish.priors.protocols import LatentPrior, TextEmbedding, TextPrior, VariationalDomain, ViewCondition, ViewPrior


@dataclass(frozen=True)
class Noised:
    """Latents with noise: z, z_t, t and eps."""

    latents: Float[Tensor, "b c m n"]
    noisy: Float[Tensor, "b c m n"]
    timesteps: Int[Tensor, " b"]
    noise: Float[Tensor, "b c m n"]


@dataclass(frozen=True)
class TextConditions:
    """Embeddings of a batch: view-dependent prompt, empty, negative, the view-independent prompt the LoRA sees, and Perp-Neg's rivals."""

    prompt: TextEmbedding
    empty: TextEmbedding
    negative: TextEmbedding
    plain: TextEmbedding
    rivals: tuple[Rival, ...] = ()

    def rows(self, rows: slice) -> "TextConditions":
        """The embeddings of some of the views."""
        return TextConditions(
            prompt=self.prompt.rows(rows),
            empty=self.empty.rows(rows),
            negative=self.negative.rows(rows),
            plain=self.plain.rows(rows),
            rivals=tuple(Rival(each.text.rows(rows), each.weights[rows]) for each in self.rivals),
        )


def draw_timesteps(t_range: tuple[float, float], n: int, n_timesteps: int, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Uniform timesteps; t_range: two fractions of the training timesteps in [0, 1]; schedules may cross, so their order is free."""
    low, high = sorted(min(max(int(fraction * n_timesteps), 0), n_timesteps - 1) for fraction in t_range)
    return torch.randint(low, high + 1, (n,), generator=generator, device=generator.device)


def add_noise(
    latents: Float[Tensor, "b c m n"],
    timesteps: Int[Tensor, " b"],
    alphas_cumprod: Float[Tensor, " t"],
    generator: torch.Generator,
) -> Noised:
    """z_t = alpha_t z + sigma_t eps. The noisy latents carry no gradient."""
    noise = torch.randn(latents.shape, generator=generator, device=generator.device, dtype=latents.dtype)
    return with_noise(latents, timesteps, alphas_cumprod, noise)


def with_noise(
    latents: Float[Tensor, "b c m n"],
    timesteps: Int[Tensor, " b"],
    alphas_cumprod: Float[Tensor, " t"],
    noise: Float[Tensor, "b c m n"],
) -> Noised:
    """The same with noise that was drawn before."""
    abar = alphas_cumprod[timesteps][:, None, None, None]
    return Noised(latents, abar.sqrt() * latents.detach() + (1 - abar).sqrt() * noise, timesteps, noise)


def text_scores(
    prior: TextPrior,
    variational: VariationalDomain | None,
    noised: Noised,
    text: TextConditions,
    world_from_camera: Float[Tensor, "b 4 4"],
    weights: ScoreWeights | SplitWeights,
) -> dict[str, Float[Tensor, "b c m n"]]:
    """The predictions that `weights` needs, the frozen network's in one batched call; with rivals, `prompt` is e_y after Perp-Neg.

    A ValueError says that a variational weight was asked for without a variational domain.
    """
    needed = needs(weights)
    texts = {"prompt": text.prompt, "empty": text.empty, "negative": text.negative}
    rivals = {f"rival {number}": rival for number, rival in enumerate(text.rivals)}
    if rivals:
        texts |= {name: rival.text for name, rival in rivals.items()}
        needed |= {"prompt", "empty", *rivals}
    frozen = [name for name in texts if name in needed]
    scores = {"noise": noised.noise}
    if frozen:
        joint = TextEmbedding.joined([texts[name] for name in frozen])
        repeated = noised.noisy.repeat(len(frozen), 1, 1, 1), noised.timesteps.repeat(len(frozen))
        predicted = prior.predict_epsilon(*repeated, joint)
        scores.update(zip(frozen, predicted.chunk(len(frozen)), strict=True))
    if rivals:
        against = [(scores.pop(name), rival.weights) for name, rival in rivals.items()]
        scores["prompt"] = without_rivals(scores["prompt"], scores["empty"], against)
    if "variational" in needed:
        if variational is None:
            raise ValueError("this objective weighs e_lora, but no variational domain was given")
        with torch.no_grad():
            scores["variational"] = variational.predict_epsilon(noised.noisy, noised.timesteps, text.plain, world_from_camera)
    return scores


def view_scores(
    prior: ViewPrior, noised: Noised, reference: ViewCondition, pose: Float[Tensor, "b 4"]
) -> dict[str, Float[Tensor, "b c m n"]]:
    """Predictions of the view prior: `prompt` is with the reference, `empty` without it."""
    prompt, empty = prior.predict_both(noised.noisy, noised.timesteps, reference, pose)
    return {"prompt": prompt, "empty": empty, "noise": noised.noise}


def score_loss(noised: Noised, delta: Float[Tensor, "b c m n"], alphas_cumprod: Float[Tensor, " t"]) -> Float[Tensor, ""]:
    """0.5 ||z - stopgrad(z - w delta)||^2 / B; its gradient at z is w(t) delta / B with w(t) = 1 - abar_t."""
    weight = (1 - alphas_cumprod[noised.timesteps])[:, None, None, None]
    target = (noised.latents - weight * delta).detach()
    return 0.5 * (noised.latents - target).square().sum() / len(noised.latents)


def variational_losses(
    domain: VariationalDomain,
    prior: LatentPrior,
    latents: Float[Tensor, "b c m n"],
    plain: TextEmbedding,
    world_from_camera: Float[Tensor, "b 4 4"],
    camera_dropout: float,
    generator: torch.Generator,
) -> Iterator[Float[Tensor, ""]]:
    """||e_lora - eps||^2, t uniform, the whole batch's camera zeroed with probability `camera_dropout` (source: threestudio).

    In parts that add up to it, of `prior.views_at_once` latents each: the graph of a part is made when it is asked for.
    """
    timesteps = draw_timesteps((0.0, 1.0), len(latents), len(prior.alphas_cumprod), generator)
    noised = add_noise(latents.detach(), timesteps, prior.alphas_cumprod, generator)
    dropped = torch.rand((), generator=generator, device=generator.device) < camera_dropout
    for rows in _parts(len(latents), prior.views_at_once):
        cameras = None if bool(dropped) else world_from_camera[rows]
        predicted = domain.predict_epsilon(noised.noisy[rows], timesteps[rows], plain.rows(rows), cameras)
        yield (predicted - noised.noise[rows]).square().mean() * (len(predicted) / len(latents))


Predict = Callable[[Noised, slice], dict[str, Float[Tensor, "b c m n"]]]
"""The predictions for some rows of a batch: the rows' latents with noise, and which rows they are."""


def distil(
    prior: LatentPrior,
    images: Float[Tensor, "b 3 h w"],
    t_range: tuple[float, float],
    predict: Predict,
    weights: ScoreWeights | SplitWeights,
    generator: torch.Generator,
) -> tuple[Float[Tensor, ""], Noised, dict[str, Float[Tensor, "b c m n"]]]:
    """One distillation step's loss over a batch of renders, with what it was made of (for LoRA fits and logs).

    Where the prior takes some views at once, each part goes through encoder, networks and back to its pictures before the next one does,
    with the same random numbers: the loss then carries the pictures' gradient in place of a graph, and what is returned beside it is
    detached.
    """
    if prior.views_at_once is not None:
        return _distil_in_parts(
            prior=prior, images=images, t_range=t_range, predict=predict, weights=weights, generator=generator
        )
    latents = prior.encode(images)
    timesteps = draw_timesteps(t_range, len(images), len(prior.alphas_cumprod), generator)
    noised = add_noise(latents, timesteps, prior.alphas_cumprod, generator)
    scores = predict(noised, slice(0, len(images)))
    delta = weighted_delta(scores, weights, timesteps)
    return score_loss(noised, delta, prior.alphas_cumprod), noised, scores


def _distil_in_parts(
    prior: LatentPrior,
    images: Tensor,
    t_range: tuple[float, float],
    predict: Predict,
    weights: ScoreWeights | SplitWeights,
    generator: torch.Generator,
) -> tuple[Tensor, Noised, dict[str, Tensor]]:
    n, abar = len(images), prior.alphas_cumprod
    timesteps = draw_timesteps(t_range, n, len(abar), generator)
    noise = torch.randn((n, *prior.latent_shape), generator=generator, device=generator.device, dtype=images.dtype)
    found, values, gradients = [], [], []
    for rows in _parts(n, prior.views_at_once):
        pictures = images[rows].detach().requires_grad_(True)
        noised = with_noise(prior.encode(pictures), timesteps[rows], abar, noise[rows])
        scores = predict(noised, rows)
        loss = score_loss(noised, weighted_delta(scores, weights, timesteps[rows]), abar) * (len(pictures) / n)
        gradients.append(torch.autograd.grad(loss, pictures)[0])
        values.append(loss.detach())
        found.append((noised.latents.detach(), noised.noisy, scores))
    latents, noisy = torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])
    joined = {name: torch.cat([each[2][name] for each in found]) for name in found[0][2]}
    loss = _Known.apply(images, torch.stack(values).sum(), torch.cat(gradients))
    return loss, Noised(latents, noisy, timesteps, noise), joined


def _parts(n: int, at_once: int | None) -> Iterator[slice]:
    size = n if at_once is None else at_once
    return (slice(first, min(first + size, n)) for first in range(0, n, max(size, 1)))


class _Known(torch.autograd.Function):
    """A number whose gradient is known already."""

    @staticmethod
    def forward(ctx: FunctionCtx, at: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """value, as a function of `at`."""
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        """The known gradient, scaled."""
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * gradient, None, None
