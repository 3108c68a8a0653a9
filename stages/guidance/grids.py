"""Hash grids from settings, and which of their levels are open at a step."""

from dreampolish.fields.hash_grid import GridSizes, HashGrid
from dreampolish.scene.cameras import SCENE_HALF_SIZE
from schemas.config.shared.geometry import GridConfig, LevelsConfig


def grid_sizes(config: GridConfig) -> GridSizes:
    """The engine's sizes of a hash grid over the scene box."""
    return GridSizes(
        n_levels=config.n_levels,
        n_features=config.n_features,
        base_resolution=config.base_resolution,
        growth=config.growth,
        table_size=2**config.log2_table_size,
        half_size=SCENE_HALF_SIZE,
    )


def active_levels(grid: HashGrid, config: LevelsConfig, progress: tuple[int, int]) -> int:
    """How many levels of a grid are open at (step, steps): from `start_level` to all by `full_at`.

    The number of levels is the grid's own: a field that came from an earlier stage has that stage's.
    """
    step, steps = progress
    share = 1.0 if config.full_at == 0 else min(1.0, step / max(steps - 1, 1) / config.full_at)
    start = min(config.start_level, grid.sizes.n_levels)
    return start + int(share * (grid.sizes.n_levels - start))


def open_all_levels(grid: HashGrid) -> None:
    """Every level counts from here on: what is published must not depend on where the schedule of levels stopped."""
    grid.active_levels = grid.sizes.n_levels
