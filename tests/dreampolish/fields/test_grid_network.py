"""Density, SDF and colour fields: values, spatial gradients, parameter gradients and round trips."""

import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dreampolish.fields.color import ColorField, color_field_from_config, fit_colors
from dreampolish.fields.density import DensityField, density_field_from_config
from dreampolish.fields.grid_network import GridNetwork
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.fields.sdf import SdfField, sdf_field_from_config

SIZES = GridSizes(n_levels=3, n_features=2, base_resolution=4, growth=1.6, table_size=512, half_size=0.65)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def roughened(field: nn.Module) -> nn.Module:
    """The field in float64 with a table that is not near zero."""
    field.double()
    table = field.network.grid.table
    with torch.no_grad():
        table.copy_(torch.rand(table.shape, generator=seeded(3), dtype=torch.float64) - 0.5)
    return field


def density_field() -> DensityField:
    return DensityField(SIZES, 8, 10.0, 4.0, 0.3, 3.0, seeded(0))


def sdf_field() -> SdfField:
    return SdfField(SIZES, 8, 0.4, math.exp(3), seeded(0))


def some_points(n: int) -> torch.Tensor:
    return (torch.rand(n, 3, generator=seeded(1), dtype=torch.float64) * 2 - 1) * 0.6


def numeric_gradient(function, points: torch.Tensor) -> torch.Tensor:
    steps = 1e-7 * torch.eye(3, dtype=torch.float64)
    return torch.stack([(function(points + step) - function(points - step)) / 2e-7 for step in steps], dim=-1)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_network_gradient_equals_finite_differences_and_autograd(activation: str) -> None:
    network = GridNetwork(SIZES, 8, 4, activation, seeded(0)).double()
    with torch.no_grad():
        network.grid.table.copy_(torch.rand(network.grid.table.shape, generator=seeded(3)) - 0.5)
    points = some_points(20).requires_grad_()
    outputs, gradient = network.with_gradient(points)
    assert torch.allclose(outputs, network(points), atol=1e-12)
    assert torch.allclose(gradient, numeric_gradient(lambda x: network(x)[:, 0], points.detach()), atol=1e-5)
    assert torch.allclose(gradient, torch.autograd.grad(network(points)[:, 0].sum(), points)[0], atol=1e-10)


def test_eikonal_term_reaches_every_parameter_with_the_right_gradient() -> None:
    field, points = roughened(sdf_field()), some_points(4)

    def eikonal() -> torch.Tensor:
        return (field.with_gradient(points)[1].norm(dim=-1) - 1).square().sum()

    eikonal().backward()
    hidden, output = field.network.hidden, field.network.output
    table = field.network.grid.table
    entry = int(table.grad[0].abs().argmax())
    for parameter, index in ((hidden.weight, (2, 3)), (hidden.bias, (1,)), (output.weight, (0, 5)), (table, (0, entry))):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[index] += sign * 1e-6
                values.append(float(eikonal().detach()))
                parameter[index] -= sign * 1e-6
        assert float(parameter.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_a_fresh_density_is_a_blob() -> None:
    field = density_field()
    points = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.6]])
    blob = 4.0 * torch.exp(-points.square().sum(-1) / (2 * 0.3**2)) - 3.0
    assert torch.allclose(field.density(points), 10 * nn.functional.softplus(blob), rtol=1e-2)
    assert torch.equal(field(points)[0], field.density(points))


def test_density_normals_point_down_the_density_gradient() -> None:
    field, points = roughened(density_field()), some_points(20)
    density, color, normals = field.with_normals(points)
    slope = numeric_gradient(lambda x: field.density(x), points)
    assert torch.allclose(normals, -nn.functional.normalize(slope, dim=-1), atol=1e-5)
    assert torch.allclose(density, field(points)[0], atol=1e-12)
    assert torch.allclose(color, field(points)[1], atol=1e-12)
    assert bool(((color >= 0) & (color <= 1)).all())


def test_a_fresh_sdf_is_a_sphere() -> None:
    field, points = sdf_field(), some_points(200).float()
    assert torch.allclose(field.sdf(points), points.norm(dim=-1) - 0.4, atol=1e-3)
    sdf, gradient, _ = field.with_gradient(points)
    assert torch.equal(sdf, field.sdf(points))
    assert torch.allclose(gradient, points / points.norm(dim=-1, keepdim=True), atol=2e-2)
    assert float(field.inverse_std) == pytest.approx(math.exp(3), rel=1e-5)


def test_sdf_gradient_equals_finite_differences() -> None:
    field, points = roughened(sdf_field()), some_points(20)
    sdf, gradient, color = field.with_gradient(points)
    assert torch.allclose(gradient, numeric_gradient(field.sdf, points), atol=1e-5)
    assert torch.allclose(color, field.color(points), atol=1e-12)
    assert torch.allclose(sdf, field(points)[0], atol=1e-12)


def test_sdf_gradient_at_the_origin_is_finite() -> None:
    assert bool(sdf_field().with_gradient(torch.zeros(1, 3))[1].isfinite().all())


@pytest.mark.parametrize(
    ("field", "rebuild"),
    [
        (density_field(), density_field_from_config),
        (sdf_field(), sdf_field_from_config),
        (ColorField(SIZES, 8, seeded(0)), color_field_from_config),
    ],
)
def test_configuration_and_safetensors_rebuild_a_field_exactly(field, rebuild) -> None:
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=seeded(5)))
    twin = rebuild(field.field_config, "cpu")
    twin.load_state_dict(load(save(field.state_dict())))
    points = some_points(30).float()
    first, second = field(points), twin(points)
    if isinstance(first, torch.Tensor):
        first, second = (first,), (second,)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_building_a_field_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    sdf_field()
    assert torch.equal(before, torch.get_rng_state())


def test_fit_colors_learns_a_smooth_colouring() -> None:
    field, points = ColorField(SIZES, 16, seeded(0)), some_points(2000).float()
    colors = (points + 0.65) / 1.3
    error = fit_colors(field, points, colors, steps=150, batch=256, learning_rate=0.02, generator=seeded(2))
    assert float(error) < 1e-3
    assert float((field(points) - colors).abs().max()) < 0.2
