"""Ray marching against its twin in plain torch, and closed forms."""

import pytest
import torch

from dreampolish.fields.occupancy import OccupancyGrid, t_range_from_box
from dreampolish.renderers.samples import march_in_occupancy, steps_by_torch

STEP = 0.037


def an_occupancy(share: float) -> OccupancyGrid:
    occupancy = OccupancyGrid(16, 0.65, "cpu")
    occupancy.occupied.copy_(torch.rand(16**3, generator=torch.Generator().manual_seed(0)) < share)
    return occupancy


def rays_and_spans(n: int, occupancy: OccupancyGrid) -> tuple[torch.Tensor, torch.Tensor]:
    """From all around towards points in and beside the box."""
    generator = torch.Generator().manual_seed(1)
    origins = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) * 2
    aims = torch.rand(n, 3, generator=generator) * 2 - 1
    directions = torch.nn.functional.normalize(aims - origins, dim=-1)
    near, far = t_range_from_box(origins, directions, *occupancy.bounds())
    return torch.stack([origins, directions]), torch.stack([near, far, torch.rand(n, generator=generator)])


@pytest.mark.parametrize("n", [0, 1, 2000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_marching_equals_its_twin(n: int, share: float) -> None:
    occupancy = an_occupancy(share)
    rays, spans = rays_and_spans(n, occupancy)
    found, expected = (steps_of(rays, spans, occupancy, STEP) for steps_of in (march_in_occupancy, steps_by_torch))
    addresses = [
        set(zip(each.ray_indices.tolist(), (each.t * 1e4).round().tolist(), strict=True)) for each in (found, expected)
    ]
    # A step on the side of a cell may fall on either.
    assert len(addresses[0] ^ addresses[1]) <= 0.001 * len(expected.t)
    if len(found.t) == len(expected.t):
        assert torch.allclose(found.points, expected.points, atol=1e-6)
        assert torch.equal(found.slots, expected.slots)


def test_an_axis_ray_through_a_full_box_has_a_step_in_each_part() -> None:
    occupancy = an_occupancy(1.0)
    rays = torch.tensor([[[-2.0, 0.01, 0.02]], [[1.0, 0.0, 0.0]]])
    spans = torch.tensor([[1.35], [2.65], [0.5]])
    steps = march_in_occupancy(rays, spans, occupancy, 0.13)
    assert steps.slots.tolist() == list(range(10))
    assert torch.allclose(steps.points[:, 0], torch.arange(10) * 0.13 - 0.585, atol=1e-6)


def test_a_ray_that_is_no_number_has_no_steps() -> None:
    occupancy = an_occupancy(1.0)
    rays, spans = rays_and_spans(3, occupancy)
    spans[:, 1] = float("nan")
    assert 1 not in march_in_occupancy(rays, spans, occupancy, STEP).ray_indices.tolist()
