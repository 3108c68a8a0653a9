"""What the renderers keep for their gradients, by formulas whose numbers were measured on a CPU (LiveBytes; tests measure them again)."""

from dataclasses import dataclass

from schemas.config.shared.geometry import GridConfig

SAMPLE, SAMPLE_BACK, FEATURE, FEATURE_BACK = 240, 125, 16, 8
"""Bytes of a volume's sample, and of each of its features (a value and its slopes along x, y, z): kept, and on the way back."""
SEEN_SHARE = 0.08
"""Samples that a ray keeps, as a share of the steps along the box's diagonal: those in occupied cells that light reaches. [choice]"""
PIXEL, PIXEL_AGAIN, PIXEL_BACK = 450, 95, 680
"""Bytes of a mesh picture's pixel: kept for the gradient; kept where it is computed again; on the way back. Of an object that covers two
thirds of its picture."""
CELL = 160
"""Bytes of a cell of the tetrahedral grid: the grid, the values on it, Adam's means, and marching through it."""
TRAINED = 16
"""Bytes of a trained number: itself, its gradient and Adam's two means."""


@dataclass(frozen=True)
class Pictures:
    """Some pictures of one kind: how many, and pixels of a side."""

    n: int
    size: int

    @property
    def pixels(self) -> int:
        """Of all."""
        return self.n * self.size**2


@dataclass(frozen=True)
class Graph:
    """Bytes behind pictures: kept until the way back, and what that adds."""

    kept: int
    back: int

    @property
    def peak(self) -> int:
        """On the way back."""
        return self.kept + self.back


def volume_bytes(pictures: list[Pictures], grid: GridConfig, samples_per_ray: int, points_at_once: int | None) -> Graph:
    """Of pictures of a volume."""
    samples = round(sum(each.pixels for each in pictures) * samples_per_ray * SEEN_SHARE)
    features = grid.n_levels * grid.n_features
    if points_at_once is None or samples <= points_at_once:
        return Graph(samples * (SAMPLE + FEATURE * features), samples * max(FEATURE_BACK * features - SAMPLE_BACK, SAMPLE_BACK))
    return Graph(samples * SAMPLE, samples * SAMPLE_BACK + points_at_once * (FEATURE + FEATURE_BACK) * features)


def mesh_bytes(renders: list[Pictures], rendered_at_once: int | None) -> Graph:
    """Of several renders of a mesh; on the way back of the largest."""
    pixels = sum(each.pixels for each in renders)
    if rendered_at_once is None:
        return Graph(pixels * PIXEL, max(each.pixels for each in renders) * PIXEL_BACK)
    back = max(min(each.n, rendered_at_once) * each.size**2 for each in renders)
    return Graph(pixels * PIXEL_AGAIN, back * (PIXEL_BACK + PIXEL))


def grid_bytes(grid: GridConfig) -> int:
    """Of a hash grid that is trained."""
    entries = 0
    for level in range(grid.n_levels):
        side = int(grid.base_resolution * grid.growth**level) + 1
        entries += min(side**3, 2**grid.log2_table_size)
    return entries * grid.n_features * TRAINED
