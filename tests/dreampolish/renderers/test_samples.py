"""Occupancy and ray sampling: against brute force, and what may never be lost."""

import pytest
import torch

from dreampolish.fields.occupancy import OccupancyGrid, t_range_from_box
from dreampolish.renderers.samples import RaySamples, sample_rays, split_samples
from dreampolish.scene.cameras import rays_from_cameras, turntable_cameras


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball_occupancy(resolution: int, radius: float) -> OccupancyGrid:
    """Cells whose random point lies in a ball are occupied."""
    occupancy = OccupancyGrid(resolution, 0.65, "cpu")
    occupancy.update(lambda points: (points.norm(dim=-1) < radius).float(), 0.5, 0.0, 1.0, seeded(0))
    return occupancy


def some_rays(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    origins, directions = rays_from_cameras(turntable_cameras(2, 20.0, 30.0, size))
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def samples_by_hand(rays: list[int], slots: list[int], n_rays: int) -> RaySamples:
    starts = torch.arange(len(rays), dtype=torch.float32)
    return RaySamples(torch.tensor(rays), torch.tensor(slots), starts, starts + 1, torch.zeros(len(rays), 3), n_rays)


def test_rays_enter_and_leave_a_box_where_geometry_says() -> None:
    origins = torch.tensor([[-2.0, 0, 0], [0, 0, 0], [-2, 5, 0], [0.5, 0.5, 3]])
    directions = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, -1]])
    near, far = t_range_from_box(origins, directions, -torch.ones(3), torch.ones(3))
    assert near[[0, 1, 3]].tolist() == [1, 0, 2]
    assert far[[0, 1, 3]].tolist() == [3, 1, 4]
    assert bool(near[2] >= far[2])


def test_a_fresh_grid_is_full_and_an_updated_one_follows_the_function() -> None:
    assert bool(OccupancyGrid(8, 0.65, "cpu").occupied.all())
    occupancy = ball_occupancy(32, 0.4)
    axis = ((torch.arange(32) + 0.5) / 32 * 2 - 1) * 0.65
    distance = torch.cartesian_prod(axis, axis, axis).norm(dim=-1)
    reach = 0.65 / 32 * 3**0.5  # half a cell's diagonal
    assert bool(occupancy.occupied[distance < 0.4 - reach].all())
    assert not bool(occupancy.occupied[distance > 0.4 + reach].any())
    lower, upper = occupancy.bounds()
    assert torch.allclose(lower, torch.full((3,), -0.4), atol=0.05)
    assert torch.allclose(upper, torch.full((3,), 0.4), atol=0.05)


def test_values_decay_and_only_chosen_cells_are_evaluated() -> None:
    occupancy = ball_occupancy(8, 0.3)
    before = occupancy.values.clone()
    counts = []

    def nothing(points: torch.Tensor) -> torch.Tensor:
        counts.append(len(points))
        return torch.zeros(len(points))

    occupancy.update(nothing, 0.5, 0.9, 0.0, seeded(1))
    assert counts == [int((before > 0).sum())]
    assert torch.allclose(occupancy.values, 0.9 * before)


def test_the_grid_s_state_restores_it() -> None:
    occupancy, twin = ball_occupancy(16, 0.4), OccupancyGrid(16, 0.65, "cpu")
    twin.load_state_dict(occupancy.state_dict())
    assert torch.equal(twin.occupied, occupancy.occupied)


def test_samples_are_exactly_the_occupied_steps_of_brute_force() -> None:
    occupancy, step = ball_occupancy(16, 0.45), 0.05
    origins, directions = some_rays(6)
    samples = sample_rays(origins, directions, occupancy, step, None)
    near, far = t_range_from_box(origins, directions, *occupancy.bounds())
    expected = []
    for ray in range(len(origins)):
        for index in range(100):
            t = float(near[ray]) + (index + 0.5) * step
            point = origins[ray] + t * directions[ray]
            cell = ((point / 1.3 + 0.5) * 16).long().clamp(0, 15)
            if t < float(far[ray]) and bool(occupancy.occupied[cell[0] * 256 + cell[1] * 16 + cell[2]]):
                expected.append((ray, t))
    assert samples.ray_indices.tolist() == [ray for ray, _ in expected]
    middles = (samples.t_starts + samples.t_ends) / 2
    assert torch.allclose(middles, torch.tensor([t for _, t in expected]), atol=1e-5)
    assert torch.allclose(samples.points, origins[samples.ray_indices] + middles[:, None] * directions[samples.ray_indices])


def test_stratified_steps_stay_in_their_strata_and_depend_on_the_generator_alone() -> None:
    occupancy = OccupancyGrid(8, 0.65, "cpu")
    origins, directions = some_rays(8)
    first = sample_rays(origins, directions, occupancy, 0.1, seeded(3))
    again = sample_rays(origins, directions, occupancy, 0.1, seeded(3))
    assert torch.equal(first.points, again.points)
    near, _ = t_range_from_box(origins, directions, *occupancy.bounds())
    position = ((first.t_starts + first.t_ends) / 2 - near[first.ray_indices]) / 0.1
    assert torch.equal(position.floor().long(), first.slots)
    assert float((position % 1).std()) > 0.2


def test_rays_that_miss_and_empty_grids_give_no_samples() -> None:
    origins, directions = torch.tensor([[2.0, 2, 2]]), torch.tensor([[1.0, 0, 0]])
    assert len(sample_rays(origins, directions, OccupancyGrid(4, 0.65, "cpu"), 0.1, None).slots) == 0
    empty = OccupancyGrid(4, 0.65, "cpu")
    empty.update(lambda points: torch.zeros(len(points)), 0.5, 0.0, 1.0, seeded(0))
    assert len(sample_rays(-origins, origins / origins.norm(), empty, 0.1, None).slots) == 0


def test_dense_and_packed_are_inverse() -> None:
    samples = samples_by_hand([0, 0, 2, 2, 2], [0, 1, 0, 1, 2], 4)
    values = torch.arange(1.0, 6.0)
    assert samples.dense(values).tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5], [0, 0, 0]]
    assert torch.equal(samples.packed(samples.dense(values)), values)


def test_splitting_covers_the_same_intervals_in_order() -> None:
    samples = samples_by_hand([0, 0, 2], [1, 4, 3], 3)
    origins, directions = torch.zeros(3, 3), torch.tensor([[1.0, 0, 0]]).expand(3, 3)
    split = split_samples(samples, 2, origins, directions)
    assert split.ray_indices.tolist() == [0, 0, 0, 0, 2, 2]
    assert split.slots.tolist() == [0, 1, 2, 3, 0, 1]
    assert split.t_starts.tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
    assert split.t_ends.tolist() == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3])
    assert split.points[:, 0].tolist() == pytest.approx([0.25, 0.75, 1.25, 1.75, 2.25, 2.75])
