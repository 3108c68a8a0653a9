"""Adam with a floor moves what pulls at its own rate, and what hardly pulls in proportion."""

import pytest
import torch

from dreampolish.optim.floored_adam import FlooredAdam


def moved(floor: float, steps: int, pulls: torch.Tensor) -> torch.Tensor:
    """How far parameters with constant gradients get."""
    parameter = torch.nn.Parameter(torch.zeros_like(pulls))
    optimizer = FlooredAdam([{"params": [parameter], "lr": 0.01, "floor": floor}], betas=(0.9, 0.99), eps=1e-15)
    for _ in range(steps):
        parameter.grad = pulls.clone()
        optimizer.step()
    return -parameter.detach()


def test_without_a_floor_it_is_adam() -> None:
    pulls = torch.tensor([1.0, 1e-6, -0.3, 0.0])
    plain = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.Adam([plain], lr=0.01, betas=(0.9, 0.99), eps=1e-15)
    for _ in range(5):
        plain.grad = pulls.clone()
        optimizer.step()
    assert torch.equal(moved(0.0, 5, pulls), -plain.detach())
    assert moved(0.0, 5, pulls)[1] == pytest.approx(0.05, rel=1e-3), "plain Adam does not see how small a gradient is"


def test_a_floor_slows_what_hardly_pulls() -> None:
    far = moved(0.05, 10, torch.tensor([1.0, 0.05, 0.001]))
    # Constant gradients g: each step is lr g / (g + floor * largest).
    expected = 0.1 * torch.tensor([1 / 1.05, 0.5, 0.001 / 0.051])
    assert torch.allclose(far, expected, rtol=2e-3)


def test_scaling_all_gradients_changes_nothing() -> None:
    pulls = torch.tensor([1.0, 0.05, 0.001])
    assert torch.allclose(moved(0.05, 10, pulls), moved(0.05, 10, pulls * 1e-4), rtol=1e-5)


def test_groups_have_floors_of_their_own_and_resume_exactly() -> None:
    first, second = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    groups = [{"params": [first], "floor": 0.1}, {"params": [second], "floor": 0.0}]
    optimizer = FlooredAdam(groups, lr=0.01)
    generator = torch.Generator().manual_seed(0)

    def go_on(steps: int) -> None:
        for _ in range(steps):
            first.grad, second.grad = torch.randn(3, generator=generator), 1e-5 * torch.randn(3, generator=generator)
            optimizer.step()

    go_on(3)
    state, place, rng = optimizer.state_dict(), (first.detach().clone(), second.detach().clone()), generator.get_state()
    state = {
        "state": {k: {n: v.clone() for n, v in s.items()} for k, s in state["state"].items()},
        "param_groups": state["param_groups"],
    }
    go_on(3)
    ended = first.detach().clone(), second.detach().clone()
    with torch.no_grad():
        first.copy_(place[0]), second.copy_(place[1])
    optimizer.load_state_dict(state)
    generator.set_state(rng)
    go_on(3)
    assert torch.equal(first.detach(), ended[0]) and torch.equal(second.detach(), ended[1])
    assert optimizer.param_groups[0]["eps"] > 1e-3 and optimizer.param_groups[1]["eps"] == 1e-8
