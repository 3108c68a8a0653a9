"""The network over a hash grid as one function, against plain torch in float64."""

import copy

import pytest
import torch

from dreampolish.fields.grid_network import Activation, GridNetwork
from dreampolish.fields.hash_grid import GridSizes

SIZES = GridSizes(n_levels=4, n_features=2, base_resolution=4, growth=2.0, table_size=1024, half_size=0.65)


def a_network(activation: Activation) -> GridNetwork:
    """Features of some tenths, as trained ones are: the softplus is neither level nor straight everywhere."""
    generator = torch.Generator().manual_seed(0)
    network = GridNetwork(SIZES, hidden_width=32, n_outputs=4, activation=activation, generator=generator)
    with torch.no_grad():
        network.grid.table.copy_(torch.randn(network.grid.table.shape, generator=generator) * 0.1)
        for bias in (network.hidden.bias, network.output.bias):
            bias.copy_(torch.randn(bias.shape, generator=generator) * 0.1)
    return network


def some_points(n: int) -> torch.Tensor:
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * 0.8


def everything(network: GridNetwork, points: torch.Tensor, *, with_gradient: bool) -> list[torch.Tensor]:
    """Outputs, gradient, and the derivatives of a loss on both by every parameter and the points."""
    points = points.clone().requires_grad_()
    generator = torch.Generator().manual_seed(2)
    if with_gradient:
        outputs, gradient = network.with_gradient(points)
        mixing = torch.randn(gradient.shape, generator=generator).to(points)
        loss = outputs.square().sum() + (gradient * mixing).sum() / 10
        found = [outputs, gradient]
    else:
        found = [network(points)]
        loss = found[0].square().sum()
    return [*(each.detach() for each in found), *torch.autograd.grad(loss, [*network.parameters(), points])]


@pytest.mark.parametrize("n", [0, 1, 9000])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("active", [2, 4])
def test_one_function_equals_plain_torch(n: int, activation: Activation, with_gradient: bool, active: int) -> None:
    network = a_network(activation)
    network.grid.active_levels = active
    exact = copy.deepcopy(network).double()
    found = everything(network, some_points(n), with_gradient=with_gradient)
    expected = everything(exact, some_points(n).double(), with_gradient=with_gradient)
    for one, other in zip(found, expected, strict=True):
        scale = max(float(other.abs().max()), 1e-6) if other.numel() else 1.0
        # Some of 9000 points fall on the other side of a ReLU's bend, or of a cell's side, in float32.
        assert float((one - other).abs().mean() if one.numel() else 0.0) < 2e-5 * scale
        assert torch.allclose(one.double(), other, atol=3e-3 * scale)


def test_far_from_the_bend_the_softplus_is_straight() -> None:
    network = a_network("softplus")
    with torch.no_grad():
        network.hidden.bias.fill_(1000.0)
    outputs, gradient = network.with_gradient(some_points(50))
    bent = copy.deepcopy(network)
    bent.activation = "relu"
    straight, straight_gradient = bent.with_gradient(some_points(50))
    assert torch.equal(outputs, straight)
    assert torch.equal(gradient, straight_gradient)


def test_the_bits_do_not_depend_on_how_often_they_are_computed() -> None:
    network, points = a_network("softplus"), some_points(9000)
    first = everything(network, points, with_gradient=True)
    assert all(torch.equal(a, b) for a, b in zip(first, everything(network, points, with_gradient=True), strict=True))
