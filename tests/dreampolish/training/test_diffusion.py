"""Training parts: the running average, the loss, the start from another network, resumption to the bit."""

import math
from pathlib import Path

import torch

from dreampolish.optim.checkpoints import Checkpoints
from dreampolish.optim.fit import fit
from dreampolish.priors.folders.loading import unet_output
from dreampolish.priors.view import LatentPatchContext
from dreampolish.training.diffusion import (
    DenoiserBatch,
    DenoisingLoss,
    RunningAverage,
    build_schedule,
    learning_rate_factor,
    prepare_for_training,
    start_from,
)
from dreampolish.training.text import RememberingTower, TextBatches, text_denoiser
from dreampolish.training.view import ViewBatches
from tests.support.tiny_priors import CHANNELS, CountingTower, tiny_space, tiny_unet

ALPHAS = build_schedule().alphas_cumprod.float()


class Quiet:
    """An observer that looks away."""

    def on_step(self, step: int, values: object) -> None:
        return None

    def stop_requested(self) -> bool:
        return False


def _captioned(n: int, generator: torch.Generator) -> tuple[torch.Tensor, list[str]]:
    return torch.rand(n, 3, 8, 8, generator=generator), [f"{'word ' * (k % 3)}end" for k in range(n)]


def _training(folder: Path | None, steps: int) -> list[torch.Tensor]:
    """Train a tiny text U-Net; returns its averages."""
    unet = tiny_unet(CHANNELS, False)
    prepare_for_training(unet, torch.device("cpu"))
    generator, average = torch.Generator().manual_seed(0), RunningAverage(list(unet.parameters()), 0.9)
    draw = TextBatches(_captioned, tiny_space(), RememberingTower(CountingTower(), 100), 4, 0.5)
    loss = DenoisingLoss(text_denoiser(unet), average, draw, ALPHAS, torch.ones(CHANNELS), 5.0, 1.0, False, generator)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    checkpoints = Checkpoints(folder, interval=2, keep=1) if folder else None
    stateful = {"unet": unet, "average": average}
    fit(loss, optimizer, lambda step: 1.0, steps, generator, stateful, checkpoints, Quiet())
    return [*average.shadow_params, *unet.parameters()]


def test_a_resumed_training_ends_in_the_same_bits(tmp_path: Path) -> None:
    through = _training(None, 4)
    _training(tmp_path, 2)
    resumed = _training(tmp_path, 4)
    assert all(torch.equal(one, other) for one, other in zip(through, resumed, strict=True))
    half = len(through) // 2
    assert any(not torch.equal(average, last) for average, last in zip(through[:half], through[half:], strict=True))


def test_the_average_equals_its_closed_form_and_stands_in_for_the_parameters() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = RunningAverage(list(layer.parameters()), 0.5)
    for value, expected in ((1.0, 1.0), (3.0, 1.0 * 2 / 11 + 3.0 * 9 / 11), (3.0, None)):
        before = float(average.shadow_params[0])
        torch.nn.init.constant_(layer.weight, value)
        average.update()  # decays 0, 2/11, 3/12: the warm-up; 0.5 is reached at the ninth
        wanted = before * 3 / 12 + value * 9 / 12 if expected is None else expected
        assert math.isclose(float(average.shadow_params[0]), wanted, rel_tol=1e-6)
    kept = average.shadow_params[0].clone()
    with average.in_place():
        assert torch.equal(layer.weight, kept)
    assert layer.weight.item() == 3.0


def test_a_perfect_denoiser_has_no_loss() -> None:
    clean = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    layer = torch.nn.Linear(1, 1)

    def perfect(noisy: torch.Tensor, t: torch.Tensor, told: object) -> torch.Tensor:
        level = ALPHAS[t].view(-1, 1, 1, 1)
        return level.sqrt() * (noisy - level.sqrt() * clean) / (1 - level).sqrt() - (1 - level).sqrt() * clean

    loss = DenoisingLoss(
        perfect,
        RunningAverage(list(layer.parameters()), 0.9),
        lambda generator: DenoiserBatch(clean.expand(8, -1, -1, -1), {}),
        ALPHAS,
        torch.ones(2),
        5.0,
        0.6,
        False,
        torch.Generator().manual_seed(2),
    )
    assert float(loss(0)["denoise"].loss) < 1e-6


def test_a_wider_network_begins_as_the_one_it_starts_from() -> None:
    narrow, wide = tiny_unet(CHANNELS, False), tiny_unet(2 * CHANNELS, False)
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.add_(0.1)
    assert start_from(wide, narrow, [*range(CHANNELS), *[None] * CHANNELS]) == []
    noisy = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(3))
    beside = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(4))
    text, t = CountingTower().embed(["a", "b c"]), torch.tensor([100, 700])
    with torch.no_grad():
        found = unet_output(wide, torch.cat([noisy, beside], dim=1), t, text)
        assert torch.allclose(found, unet_output(narrow, noisy, t, text), atol=1e-5)


def test_input_channels_may_change_places() -> None:
    first, second = tiny_unet(2 * CHANNELS, False), tiny_unet(2 * CHANNELS, False)
    with torch.no_grad():
        second.conv_in.weight.zero_()
    start_from(second, first, [*range(CHANNELS, 2 * CHANNELS), *range(CHANNELS)])
    one, other = (torch.randn(1, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6))
    text, t = CountingTower().embed(["a"]), torch.tensor([300])
    with torch.no_grad():
        found = unet_output(second, torch.cat([one, other], dim=1), t, text)
        assert torch.allclose(found, unet_output(first, torch.cat([other, one], dim=1), t, text), atol=1e-5)


def test_the_training_attention_is_the_same_function() -> None:
    unet = tiny_unet(CHANNELS, False)
    noisy, t = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(3)), torch.tensor([10, 900])
    text = CountingTower().embed(["a", "b c d"])
    with torch.no_grad():
        before = unet_output(unet, noisy, t, text)
        prepare_for_training(unet, torch.device("cpu"))
        assert torch.allclose(unet_output(unet, noisy, t, text), before, atol=1e-5)


def test_a_remembering_tower_asks_once_and_answers_alike() -> None:
    tower = CountingTower()
    remembering = RememberingTower(tower, 10)
    first = remembering.embed(["a chair", "", "a chair"])
    assert tower.calls == [["a chair", ""]]
    again = remembering.embed(["", "a chair"])
    assert tower.calls == [["a chair", ""]]
    assert first.mask.sum(dim=1).tolist() == [3, 1, 3]
    assert torch.equal(again.states[1], first.states[0])
    direct = CountingTower().embed(["a chair"]).states[0]
    assert torch.allclose(first.states[0], direct, atol=1e-3)  # float16 in memory


def test_dropped_captions_are_empty() -> None:
    tower = CountingTower()
    TextBatches(_captioned, tiny_space(), RememberingTower(tower, 10), 6, 1.0)(torch.Generator().manual_seed(0))
    assert tower.calls == [[""]]


def test_dropped_references_are_zero_and_poses_stay() -> None:
    def pairs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.rand(n, 3, 8, 8), torch.rand(n, 3, 8, 8), torch.ones(n, 4)

    batches = [ViewBatches(pairs, tiny_space(), LatentPatchContext(2), 3, share) for share in (0.0, 1.0)]
    kept, dropped = (batch(torch.Generator().manual_seed(0)).told for batch in batches)
    assert kept["latents"].abs().min(dim=0).values.sum() > 0
    assert dropped["latents"].abs().sum() == 0
    assert dropped["tokens"].abs().sum() == 0
    assert torch.equal(dropped["pose"], torch.ones(3, 4))


def test_the_learning_rate_rises_stays_and_falls() -> None:
    factors = [learning_rate_factor(step, 10, 50, 100) for step in (0, 9, 30, 50, 75, 100)]
    assert [round(factor, 3) for factor in factors] == [0.1, 1.0, 1.0, 1.0, 0.525, 0.05]
