"""Every kernel on a GPU against what the CPU computes; without a GPU nothing here runs."""

import copy
import math

import pytest
import torch
import trimesh

from dreampolish.fields.grid_network import Activation, GridNetwork
from dreampolish.fields.hash_grid import GridSizes, HashGrid
from dreampolish.fields.occupancy import OccupancyGrid, t_range_from_box
from dreampolish.kernels.mesh_distance import MeshDistance
from dreampolish.renderers.samples import march_in_occupancy

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIZES = GridSizes(n_levels=4, n_features=2, base_resolution=4, growth=2.0, table_size=1024, half_size=0.65)
N = 5000


def check_near(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float = 1e-4) -> None:
    """Sums of thousands of float32 numbers in another order."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = max(float(other.abs().max()), 1e-6) if other.numel() else 1.0
        assert torch.allclose(one.cpu(), other, atol=tolerance * scale, rtol=1e-4)


def some_points(n: int) -> torch.Tensor:
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1) * 0.8


def of_the_grid(grid: HashGrid, points: torch.Tensor) -> list[torch.Tensor]:
    points = points.clone().requires_grad_()
    features, jacobian = grid._by_kernels(points, True)
    mixing = torch.randn(jacobian.shape, generator=torch.Generator().manual_seed(2)).to(points)
    loss = features.square().sum() + (jacobian * mixing).sum() / 100
    return [features.detach(), jacobian.detach(), *torch.autograd.grad(loss, [grid.table, points])]


@pytest.mark.parametrize("n", [0, 1, N])
def test_the_hash_grid(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = HashGrid(SIZES, generator)
    with torch.no_grad():
        grid.table.copy_(torch.randn(grid.table.shape, generator=generator))
    check_near(of_the_grid(copy.deepcopy(grid).cuda(), some_points(n).cuda()), of_the_grid(grid, some_points(n)))


def of_the_network(network: GridNetwork, points: torch.Tensor) -> list[torch.Tensor]:
    points = points.clone().requires_grad_()
    outputs, gradient = network.with_gradient(points)
    mixing = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(2)).to(points)
    loss = outputs.square().sum() + (gradient * mixing).sum() / 10
    return [outputs.detach(), gradient.detach(), *torch.autograd.grad(loss, [*network.parameters(), points])]


@pytest.mark.parametrize("n", [0, 1, N])
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_network_over_a_grid(n: int, activation: Activation) -> None:
    generator = torch.Generator().manual_seed(0)
    network = GridNetwork(SIZES, hidden_width=32, n_outputs=4, activation=activation, generator=generator)
    with torch.no_grad():
        network.grid.table.copy_(torch.randn(network.grid.table.shape, generator=generator) * 0.1)
    there = of_the_network(copy.deepcopy(network).cuda(), some_points(n).cuda())
    check_near(there, of_the_network(network, some_points(n)), tolerance=3e-3)  # points beside a bend or a cell's side


@pytest.mark.parametrize("n", [0, 1, N])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ray_marching(n: int, share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    here = OccupancyGrid(16, 0.65, "cpu")
    here.occupied.copy_(torch.rand(16**3, generator=generator) < share)
    there = OccupancyGrid(16, 0.65, "cuda")
    there.occupied.copy_(here.occupied)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 2
    directions = torch.nn.functional.normalize(torch.rand(n, 3, generator=generator) * 2 - 1 - origins, dim=-1)
    near, far = t_range_from_box(origins, directions, *here.bounds())
    rays, spans = torch.stack([origins, directions]), torch.stack([near, far, torch.rand(n, generator=generator)])
    expected = march_in_occupancy(rays, spans, here, 0.037)
    found = march_in_occupancy(rays.cuda(), spans.cuda(), there, 0.037)
    addresses = [
        set(zip(each.ray_indices.tolist(), (each.t * 1e4).round().tolist(), strict=True)) for each in (found, expected)
    ]
    # A step on the side of a cell may fall on either.
    assert len(addresses[0] ^ addresses[1]) <= 0.001 * len(expected.t)


def test_distances_from_a_mesh() -> None:
    ring = trimesh.creation.torus(0.35, 0.2, 16, 8)
    vertices, faces = torch.tensor(ring.vertices).float(), torch.tensor(ring.faces)
    points = torch.rand(N, 3, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.7
    places, _, inside = MeshDistance(vertices, faces).nearest(points, math.inf, 0.5)
    there = MeshDistance(vertices.cuda(), faces.cuda()).nearest(points.cuda(), math.inf, 0.5)
    assert there[0].device.type == "cuda"
    assert torch.allclose((there[0].cpu() - points).norm(dim=-1), (places - points).norm(dim=-1), atol=1e-5)
    assert int((there[2].cpu() != inside).sum()) <= N // 1000
