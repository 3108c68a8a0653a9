"""The exact identities between objectives, and the gradient that distillation sends to a latent."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dreampolish.priors.distillation import scores, weights
from dreampolish.priors.distillation.guidance import PromptEmbeddings
from dreampolish.priors.distillation.perp_neg import Rival, blend_at, without_rival, without_rivals
from dreampolish.priors.distillation.weights import ScoreWeights, SplitWeights, weighted_delta
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.scene.cameras import orbit_cameras

scale = st.floats(-20, 120)
share = st.floats(0, 1)


def predictions(seed: int = 0, n: int = 6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, 2, 3, 3, generator=generator, dtype=torch.float64) for name in weights.NAMES}


T = torch.tensor([0, 100, 199, 200, 500, 999])


def assert_same(left: ScoreWeights | SplitWeights, right: ScoreWeights | SplitWeights, given_scores: dict[str, Tensor]) -> None:
    torch.testing.assert_close(
        weighted_delta(given_scores, left, T), weighted_delta(given_scores, right, T), rtol=1e-9, atol=1e-9
    )


@given(scale)
def test_dsd_with_realism_one_is_vsd(s: float) -> None:
    assert_same(weights.dsd_weights(1.0, s - 1), weights.vsd_weights(s), predictions())


def test_dsd_without_realism_is_csd() -> None:
    assert_same(weights.dsd_weights(0.0, 1.0), weights.csd_weights(0.0), predictions())


def test_dsd_without_stability_is_vsd_without_guidance() -> None:
    p = predictions()
    torch.testing.assert_close(weighted_delta(p, weights.dsd_weights(1.0, 0.0), T), p["prompt"] - p["variational"])
    assert_same(weights.dsd_weights(1.0, 0.0), weights.vsd_weights(1.0), p)


@given(scale)
def test_dsd_is_sds_when_the_variational_network_knows_the_noise(s: float) -> None:
    p = predictions()
    p["variational"] = p["noise"]
    assert_same(weights.dsd_weights(1.0, s - 1), weights.sds_weights(s), p)


@given(scale, scale, share)
def test_weights_sum_to_zero(s: float, other: float, negative: float) -> None:
    presets = [
        weights.sds_weights(s),
        weights.csd_weights(negative),
        weights.vsd_weights(s),
        weights.dsd_weights(s, other),
        weights.nfsd_weights(s).high,
    ]
    for preset in presets:
        assert preset.total() == pytest.approx(0, abs=1e-9)
    # The one exception, by NFSD's own definition: below its split the domain correction is e_0 itself.
    assert weights.nfsd_weights(s).low.total() == pytest.approx(1)


def test_formulas_term_by_term() -> None:
    p = predictions()
    e_y, e_0, e_n, e_l, eps = (p[name] for name in weights.NAMES)
    expected = {
        "sds": (e_y - eps) + 99 * (e_y - e_0),
        "csd": e_y - 0.75 * e_0 - 0.25 * e_n,
        "vsd": (e_y - e_l) + 6.5 * (e_y - e_0),
        "dsd": 0.8 * (e_y - e_l) + 0.5 * (e_y - e_0),
    }
    actual = {
        "sds": weights.sds_weights(100.0),
        "csd": weights.csd_weights(0.25),
        "vsd": weights.vsd_weights(7.5),
        "dsd": weights.dsd_weights(0.8, 0.5),
    }
    for name, preset in actual.items():
        torch.testing.assert_close(weighted_delta(p, preset, T), expected[name])


def test_nfsd_splits_at_timestep_200() -> None:
    p = predictions()
    e_y, e_0, e_n, _, _ = (p[name] for name in weights.NAMES)
    low, high = e_0 + 7.5 * (e_y - e_0), e_0 - e_n + 7.5 * (e_y - e_0)
    expected = torch.cat([low[:3], high[3:]])
    torch.testing.assert_close(weighted_delta(p, weights.nfsd_weights(7.5), T), expected, rtol=1e-6, atol=1e-6)


def test_unneeded_predictions_need_not_exist() -> None:
    assert weights.needs(weights.csd_weights(0.0)) == {"prompt", "empty"}
    assert weights.needs(weights.nfsd_weights(2.0)) == {"prompt", "empty", "negative"}
    with pytest.raises(KeyError):
        weighted_delta({"prompt": predictions()["prompt"]}, weights.csd_weights(0.0), T)


class LinearPrior:
    """A prior whose latents are 3 x the picture's channels and whose predictions are known functions."""

    image_size = 4
    alphas_cumprod = torch.linspace(0.99, 0.01, 1000)
    latent_shape = (3, 4, 4)
    views_at_once: int | None = None

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        return 3 * images

    def decode(self, latents: Tensor) -> Tensor:
        return latents / 3

    def embed(self, prompts: object) -> TextEmbedding:
        raise AssertionError("no prompt is embedded here")

    sample = add_lora = embed

    def predict_epsilon(self, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
        self.batches.append(len(noisy))
        return text.states[:, 0, 0][:, None, None, None] * torch.ones_like(noisy)


def conditions(n: int) -> scores.TextConditions:
    def embedding(value: float) -> TextEmbedding:
        return TextEmbedding(torch.full((n, 1, 1), value), torch.ones(n, 1, dtype=torch.bool))

    return scores.TextConditions(embedding(1.0), embedding(0.25), embedding(-1.0), embedding(1.0))


def test_gradient_at_the_picture_is_w_delta_through_the_encoder() -> None:
    prior, generator = LinearPrior(), torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    chosen = weights.csd_weights(0.0)

    def predict(noised: scores.Noised, rows: slice) -> dict[str, Tensor]:
        assert rows == slice(0, 2)
        return scores.text_scores(prior, None, noised, conditions(2), torch.eye(4).expand(2, 4, 4), chosen)

    loss, noised, _ = scores.distil(prior, images, (0.2, 0.5), predict, chosen, generator)
    loss.backward()
    w = 1 - prior.alphas_cumprod[noised.timesteps]
    expected = 3 * w[:, None, None, None] * 0.75 / 2  # d encode * w * (e_y - e_0) / B
    torch.testing.assert_close(images.grad, expected.expand(2, 3, 4, 4))
    assert prior.batches == [4]  # prompt and empty in one call
    assert bool((noised.timesteps >= 200).all()) and bool((noised.timesteps <= 500).all())


def test_noise_follows_the_schedule() -> None:
    abar = torch.tensor([0.25, 0.64])
    noised = scores.add_noise(torch.ones(2, 1, 1, 1), torch.tensor([0, 1]), abar, torch.Generator().manual_seed(0))
    expected = torch.tensor([0.5, 0.8]) + torch.tensor([0.75, 0.36]).sqrt() * noised.noise.flatten()
    torch.testing.assert_close(noised.noisy.flatten(), expected)


def test_a_variational_weight_needs_a_variational_domain() -> None:
    prior, generator = LinearPrior(), torch.Generator().manual_seed(1)
    noised = scores.add_noise(torch.zeros(1, 3, 4, 4), torch.tensor([5]), prior.alphas_cumprod, generator)
    with pytest.raises(ValueError, match="e_lora"):
        scores.text_scores(prior, None, noised, conditions(1), torch.eye(4)[None], weights.vsd_weights(2.0))


class ConstantDomain:
    """Predicts one trainable number everywhere and remembers the camera it was given."""

    number_format = torch.float32

    def __init__(self) -> None:
        self.value = torch.nn.Parameter(torch.tensor(0.5))
        self.cameras: list[object] = []

    def parameters(self) -> list[torch.nn.Parameter]:
        return [self.value]

    def state_dict(self) -> dict[str, Tensor]:
        return {"value": self.value.detach()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        raise AssertionError("nothing is restored here")

    def predict_epsilon(
        self, noisy: Tensor, timesteps: Tensor, text: TextEmbedding, world_from_camera: Tensor | None
    ) -> Tensor:
        self.cameras.append(world_from_camera)
        return self.value.expand_as(noisy)


@pytest.mark.parametrize(("dropout", "zeroed"), [(0.0, False), (1.0, True)])
def test_variational_loss_is_mean_square_to_the_noise(dropout: float, zeroed: bool) -> None:
    domain, prior = ConstantDomain(), LinearPrior()
    latents = torch.rand(64, 3, 8, 8, requires_grad=True)
    plain = TextEmbedding(torch.zeros(64, 1, 1), torch.ones(64, 1, dtype=torch.bool))
    parts = scores.variational_losses(
        domain=domain,
        prior=prior,
        latents=latents,
        plain=plain,
        world_from_camera=torch.eye(4).expand(64, 4, 4),
        camera_dropout=dropout,
        generator=torch.Generator().manual_seed(0),
    )
    (loss,) = parts
    loss.backward()
    assert loss.item() == pytest.approx(1 + 0.25, abs=0.05)  # E (0.5 - eps)^2
    assert domain.value.grad is not None and domain.value.grad.item() == pytest.approx(1.0, abs=0.05)
    assert latents.grad is None
    assert (domain.cameras[0] is None) == zeroed


def test_perp_neg_takes_only_what_is_at_right_angles() -> None:
    empty = torch.zeros(3, 1, 1, 2)
    prompt = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 4.0]]).view(3, 1, 1, 2)
    rival = torch.tensor([[5.0, 2.0], [-7.0, 0.0], [-4.0, 3.0]]).view(3, 1, 1, 2)
    found = without_rival(prompt, empty, rival, torch.tensor([0.5, 0.5, 2.0])).view(3, 2)
    expected = torch.tensor([[3.0, -1.0], [3.0, 0.0], [11.0, -2.0]])
    torch.testing.assert_close(found, expected)


@given(st.integers(0, 1000), st.floats(0, 10))
def test_perp_neg_keeps_the_wanted_direction_and_does_not_mind_the_empty_prompts_place(seed: int, weight: float) -> None:
    p = predictions(seed)
    kept = without_rival(p["prompt"], p["empty"], p["negative"], torch.full((6,), weight, dtype=torch.float64))
    wanted = p["prompt"] - p["empty"]
    along = ((kept - p["empty"]) * wanted).sum(dim=(1, 2, 3))
    torch.testing.assert_close(along, wanted.square().sum(dim=(1, 2, 3)))
    shifted = without_rival(p["prompt"] + 1, p["empty"] + 1, p["negative"] + 1, torch.full((6,), weight, dtype=torch.float64))
    torch.testing.assert_close(shifted, kept + 1)


def test_a_rival_changes_the_prompts_score_in_one_batched_call() -> None:
    prior, generator = LinearPrior(), torch.Generator().manual_seed(1)
    noised = scores.add_noise(torch.zeros(2, 3, 4, 4), torch.tensor([5, 9]), prior.alphas_cumprod, generator)
    plain = conditions(2)
    rival = Rival(plain.negative, torch.tensor([0.0, 1.0]))
    text = scores.TextConditions(plain.prompt, plain.empty, plain.negative, plain.plain, (rival,))
    cameras = torch.eye(4).expand(2, 4, 4)
    without = scores.text_scores(prior, None, noised, plain, cameras, weights.csd_weights(0.0))
    found = scores.text_scores(prior, None, noised, text, cameras, weights.csd_weights(0.0))
    assert prior.batches == [4, 6]
    assert not any("rival" in name for name in found)
    # Predictions that are constant over the picture are parallel, so nothing is at right angles.
    torch.testing.assert_close(found["prompt"], without["prompt"])


def test_each_view_has_its_rival() -> None:
    prior = letter_counting_prior()
    prompts = PromptEmbeddings(prior, "a chair", "", 45.0, 2.0)
    cameras = orbit_cameras(
        torch.tensor([0.0, 90.0, 180.0, 0.0]), torch.tensor([0.0, 0.0, 0.0, 80.0]), torch.full((4,), 20.0), 8
    )
    found = prompts.conditions(cameras)
    (rival,) = found.rivals
    assert rival.weights.tolist() == pytest.approx([3.148, 3.148, 3.934, 0.0])
    front, side = prior.embed(["a chair, front view"]).states, prior.embed(["a chair, side view"]).states
    torch.testing.assert_close(rival.text.states, torch.cat([side, front, front, front]))
    assert PromptEmbeddings(prior, "a chair", "", 45.0, 0.0).conditions(cameras).rivals == ()


def letter_counting_prior() -> LinearPrior:
    """A prior whose embedding of a text is the sum of its letters."""

    class Embedding(LinearPrior):
        def embed(self, prompts: object) -> TextEmbedding:
            assert isinstance(prompts, list)
            values = [float(sum(map(ord, text))) for text in prompts]
            return TextEmbedding(torch.tensor(values)[:, None, None], torch.ones(len(values), 1, dtype=torch.bool))

        sample = add_lora = embed

    return Embedding()


@pytest.mark.parametrize(
    ("azimuth", "words", "share", "rivals"),
    [
        # threestudio's a exp(-b r) + c with its default numbers
        (0.0, ("front view", "side view"), 1.0, (("front view", 0.000123), ("side view", 1.574))),
        (-45.0, ("front view", "side view"), 0.5, (("front view", 0.689203), ("side view", 0.689203))),
        (90.0, ("side view", "back view"), 1.0, (("side view", 0.000531), ("front view", 1.573531))),
        (180.0, ("side view", "back view"), 0.0, (("side view", 0.394), ("front view", 1.967))),
        (225.0, ("side view", "back view"), 0.5, (("side view", 0.172801), ("front view", 1.745801))),
    ],
)
def test_prompts_and_rivals_go_over_with_the_azimuth(
    azimuth: float, words: tuple[str, str], share: float, rivals: tuple[tuple[str, float], ...]
) -> None:
    found = blend_at(azimuth, 20.0, 60.0)
    assert found.words == words
    assert found.share == pytest.approx(share)
    assert [name for name, _ in found.rivals] == [name for name, _ in rivals]
    assert [weight for _, weight in found.rivals] == pytest.approx([weight for _, weight in rivals], abs=1e-5)
    assert [weight for _, weight in blend_at(azimuth, 61.0, 60.0).rivals] == [0.0, 0.0]


def test_mixed_prompts_meet_the_sectors_at_their_middles() -> None:
    prior = letter_counting_prior()
    angles = torch.tensor([0.0, 90.0, 180.0])
    cameras = orbit_cameras(angles, torch.zeros(3), torch.full((3,), 20.0), 8)
    mixed = PromptEmbeddings(prior, "a chair", "", 45.0, 2.0, blended=True).conditions(cameras)
    plain = PromptEmbeddings(prior, "a chair", "", 45.0, 0.0).conditions(cameras)
    torch.testing.assert_close(mixed.prompt.states, plain.prompt.states)
    assert [rival.weights[2].item() for rival in mixed.rivals] == pytest.approx([0.788, 3.934], abs=1e-3)


def test_two_rivals_are_taken_off_each_by_itself() -> None:
    prompt, empty = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    first, second = torch.tensor([5.0, 3.0]).view(1, 1, 1, 2), torch.tensor([-1.0, -4.0]).view(1, 1, 1, 2)
    found = without_rivals(prompt, empty, [(first, torch.tensor([0.5])), (second, torch.tensor([2.0]))])
    assert found.flatten().tolist() == pytest.approx([2.0, -0.5 * 3 + 2 * 4])
