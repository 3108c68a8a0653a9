"""The training loop against closed forms, and resumption against an undisturbed run."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
import torch

from dreampolish.optim.atomic_files import partial_path
from dreampolish.optim.checkpoints import Checkpoints
from dreampolish.optim.fit import DivergedError, FitInterruptedError, FitResult, Term, fit


class Watcher:
    """Records values; stops or ends where told."""

    def __init__(self, stop_after: int | None = None, end_after: int | None = None) -> None:
        self.stop_after, self.end_after, self.seen = stop_after, end_after, []

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        self.seen.append(step)
        return "plateau" if step == self.end_after else None

    def stop_requested(self) -> bool:
        return bool(self.seen) and self.seen[-1] == self.stop_after


class Problem:
    """A noisy linear regression: randomness in every step, so that a wrong generator state shows."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(3, 1)
        torch.nn.init.constant_(self.model.weight, 0.5)
        torch.nn.init.zeros_(self.model.bias)
        self.generator = torch.Generator().manual_seed(3)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)

    def losses(self, step: int) -> dict[str, Term]:
        x = torch.randn(8, 3, generator=self.generator)
        return {"fit": Term((self.model(x) - x.sum(1, keepdim=True)).square().mean(), 2.0)}

    def run(self, steps: int, checkpoints: Checkpoints | None, watcher: Watcher) -> FitResult:
        return fit(
            self.losses, self.optimizer, lambda step: 1 / (1 + step), steps, self.generator,
            {"model": self.model}, checkpoints, watcher,
        )  # fmt: skip


def test_resume_is_bit_exact(tmp_path: Path) -> None:
    whole = Problem()
    whole.run(20, None, Watcher())
    checkpoints = Checkpoints(tmp_path, interval=4, keep=2)
    with pytest.raises(FitInterruptedError) as stop:
        Problem().run(20, checkpoints, Watcher(stop_after=10))
    assert stop.value.step == 10
    again = Problem()
    result = again.run(20, checkpoints, Watcher())
    assert (result.resumed_from, result.steps, result.reason) == (10, 20, "step cap 20")
    assert torch.equal(again.model.weight, whole.model.weight)
    assert torch.equal(again.generator.get_state(), whole.generator.get_state())


def test_the_last_step_is_kept_even_when_it_is_not_due(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, interval=8, keep=2)
    Problem().run(20, checkpoints, Watcher())
    again = Watcher()
    assert Problem().run(20, checkpoints, again).resumed_from == 20
    assert again.seen == []
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["step-00000016.json", "step-00000020.json"]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_every_flipped_bit_and_cut_of_the_newest_checkpoint_leads_to_the_one_before(tmp_path: Path, suffix: str) -> None:
    checkpoints = Checkpoints(tmp_path, interval=5, keep=2)
    Problem().run(20, checkpoints, Watcher())
    newest, random = tmp_path / f"step-00000020{suffix}", Random(1)
    content = newest.read_bytes()
    whole = checkpoints.latest()
    assert whole is not None and whole[0] == 20
    for position in random.sample(range(len(content) * 8), 200):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        newest.write_bytes(changed)
        latest = checkpoints.latest()
        assert latest is not None
        # 1e-08 and 1E-08 are the same number, and a hash that is no longer called so proves nothing: what is used has not changed.
        assert latest[0] == 15 or (suffix == ".json" and str(latest) == str(whole))
    for tenth in range(10):
        newest.write_bytes(content[: len(content) * tenth // 10])
        latest = checkpoints.latest()
        assert latest is not None and latest[0] == 15


def test_what_a_kill_inside_a_write_left_is_removed_by_the_next(tmp_path: Path) -> None:
    unfinished = partial_path(tmp_path / "step-00000004.json").name
    for name in ("step-00000003.safetensors.partial", "step-00000004.safetensors", unfinished):
        (tmp_path / name).write_bytes(b"half")
    checkpoints = Checkpoints(tmp_path, interval=5, keep=2)
    assert checkpoints.latest() is None
    Problem().run(10, checkpoints, Watcher())
    stems = [f"step-{step:08d}{suffix}" for step in (5, 10) for suffix in (".json", ".safetensors")]
    assert sorted(path.name for path in tmp_path.iterdir()) == stems
    checkpoints.clear()
    assert not tmp_path.exists()


def test_a_reason_ends_the_fit_and_survives_resumption(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, interval=50, keep=2)
    assert Problem().run(20, checkpoints, Watcher(end_after=7)) == FitResult(7, "plateau", 0)
    assert Problem().run(20, checkpoints, Watcher()) == FitResult(7, "plateau", 7)


def test_nan_is_refused_with_term_and_step() -> None:
    problem = Problem()

    def losses(step: int) -> dict[str, Term]:
        return {"good": Term(problem.model.weight.sum(), 1.0), "bad": Term(torch.tensor(float("nan")), float(step == 3))}

    with pytest.raises(DivergedError, match="'bad'.*step 0"):
        fit(losses, problem.optimizer, lambda _: 1.0, 5, problem.generator, {"model": problem.model}, None, Watcher())


def test_infinite_gradients_are_refused() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def losses(step: int) -> dict[str, Term]:
        return {"root": Term(weight.sqrt().sum(), 1.0)}  # value 0, slope infinite

    with pytest.raises(DivergedError, match="gradient.*step 0"):
        fit(losses, optimizer, lambda _: 1.0, 5, torch.Generator(), {}, None, Watcher())


def test_weight_scales_the_step() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    fit(
        lambda step: {"a": Term(weight.sum(), 3.0), "b": Term(weight.sum() * 2, 0.5)},
        torch.optim.SGD([weight], lr=0.1), lambda step: 0.5, 1, torch.Generator(), {}, None, Watcher(),
    )  # fmt: skip
    assert weight.item() == pytest.approx(1 - 0.1 * 0.5 * 4)


def test_a_checkpoint_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not set"):
        Checkpoints(tmp_path, interval=1, keep=1).save(1, {"a": {1, 2}})


def test_integer_keys_and_nesting_survive(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, interval=1, keep=1)
    state = {"state": {0: {"step": torch.tensor(3.0), "list": [1, 2.5, None, "x", True]}}}
    checkpoints.save(1, state)
    latest = checkpoints.latest()
    assert latest is not None and latest[1] == state
