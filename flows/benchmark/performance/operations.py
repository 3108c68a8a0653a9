"""The engine's operations beside other ways of doing the same, and how their time grows."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from trimesh.creation import icosphere

from dreampolish.fields.hash_grid import GridSizes, HashGrid
from dreampolish.mesh.marching_tetrahedra import marching_tetrahedra
from dreampolish.mesh.tet_grid import tet_grid
from dreampolish.renderers.rasterizer import rasterize
from dreampolish.scene.cameras import SCENE_HALF_SIZE, turntable_cameras
from dreampolish.scene.cutout import OBJECT_RADIUS
from flows.benchmark.performance.encoding import TorchHashEncoding
from flows.benchmark.performance.timing import Comparison, Way, side_by_side, slope
from stages.guidance.reference_view import REFERENCE_FOV_DEG

GRID = GridSizes(n_levels=10, n_features=2, base_resolution=8, growth=1.447, table_size=2**15, half_size=SCENE_HALF_SIZE)
"""Near the grids of `home`, and what the figures of docs/choices.md were measured with."""
POINTS = 50_000
TET_RESOLUTION, CUBES = 64, 41
"""68,705 values on the tetrahedral lattice, 68,921 on the cubic one."""
GROWTH_POINTS = (12_500, 25_000, 50_000, 100_000)
GROWTH_PIXELS = (64, 128, 256, 512)
GROWTH_SUBDIVISIONS = (4, 5, 6)
GROWTH_VIEWS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Growth:
    """How the time of an operation grows with a size. exponent: 1 is proportional."""

    what: str
    sizes: tuple[float, ...]
    milliseconds: tuple[float, ...]
    exponent: float


def compared(device: torch.device, rounds: int) -> list[Comparison]:
    """Every operation beside the other ways that this machine and device have."""
    return [
        hash_grid(device, rounds, POINTS),
        *([rasterizer(rounds)] if device.type == "cpu" else []),
        surfaces(device, rounds),
    ]


def hash_grid(device: torch.device, rounds: int, n_points: int) -> Comparison:
    """Features of points and the gradient of their sum: the kernels, their twin, and nerfstudio's way."""
    generator = torch.Generator(device).manual_seed(0)
    grid = HashGrid(GRID, generator)
    other = TorchHashEncoding(GRID.n_levels, GRID.n_features, GRID.table_size, GRID.resolutions()).to(device)
    points = torch.rand(n_points, 3, generator=generator, device=device)
    placed = (points - 0.5) * (2 * GRID.half_size)

    def twin() -> Tensor:
        return grid._by_torch(placed, with_jacobian=False)[0]

    ways: dict[str, Way] = {
        "kernels": lambda: _step(grid(placed), grid),
        "twin in torch": lambda: _step(twin(), grid),
        "nerfstudio's formulas in torch": lambda: _step(other(points), other),
    }
    return side_by_side(f"hash grid, forward and backward, {n_points:,} points", ways, rounds)


def _step(features: Tensor, module: torch.nn.Module) -> None:
    module.zero_grad(set_to_none=True)
    features.square().sum().backward()


def rasterizer(rounds: int) -> Comparison:
    """A picture of a ball, with barycentrics and depth: our rasteriser, and embree with and without its tree."""
    from dreampolish.renderers.embree import embree_scene, rasterize_frozen

    vertices, faces = _ball(5, torch.device("cpu"))
    cameras = turntable_cameras(1, 15.0, REFERENCE_FOV_DEG, 128)
    scene = embree_scene(vertices, faces)
    ways: dict[str, Way] = {
        "ours": lambda: rasterize(vertices, faces, cameras, cull_backfaces=True),
        "embree": lambda: rasterize_frozen(vertices, faces, cameras, scene),
        "embree, its tree built anew": lambda: rasterize_frozen(vertices, faces, cameras, embree_scene(vertices, faces)),
    }
    return side_by_side(f"rasteriser, {len(faces):,} triangles, 128 pixels", ways, rounds)


def _ball(subdivisions: int, device: torch.device) -> tuple[Tensor, Tensor]:
    ball = icosphere(subdivisions=subdivisions, radius=OBJECT_RADIUS)
    return torch.tensor(ball.vertices, dtype=torch.float32, device=device), torch.tensor(ball.faces, device=device)


def surfaces(device: torch.device, rounds: int) -> Comparison:
    """A ball's surface out of a lattice of signed distances: marching tetrahedra, scikit-image's marching cubes, kaolin's tetrahedra."""
    from skimage.measure import marching_cubes

    grid = tet_grid(TET_RESOLUTION, SCENE_HALF_SIZE).to(device)
    sdf = grid.vertices.norm(dim=-1) - OBJECT_RADIUS
    along = torch.linspace(-SCENE_HALF_SIZE, SCENE_HALF_SIZE, CUBES)
    cubes = (torch.stack(torch.meshgrid(along, along, along, indexing="ij")).norm(dim=0) - OBJECT_RADIUS).numpy()
    ways: dict[str, Way] = {
        "ours": lambda: marching_tetrahedra(grid.vertices, sdf, grid.tets),
        "scikit-image's cubes (no gradient)": lambda: marching_cubes(cubes, 0.0),
    }
    if find_spec("kaolin") is not None:
        ways["kaolin's tetrahedra"] = lambda: _kaolin(grid.vertices, grid.tets, sdf)
    return side_by_side(f"surface of {len(sdf):,} distances", ways, rounds)


def _kaolin(vertices: Tensor, tets: Tensor, sdf: Tensor) -> Any:
    from kaolin.ops.conversions import marching_tetrahedra as theirs

    return theirs(vertices[None], tets, sdf[None])


def grown(device: torch.device, rounds: int) -> list[Growth]:
    """How the hash grid's time grows with points, and the rasteriser's with pixels, triangles and views."""
    return [
        _growth("hash grid over points", {n: _grid_way(n, device) for n in GROWTH_POINTS}, rounds),
        _growth("rasteriser over pixels", {size**2: _view_way(5, 1, size, device) for size in GROWTH_PIXELS}, rounds),
        _growth(
            "rasteriser over triangles",
            {20 * 4**level: _view_way(level, 1, 256, device) for level in GROWTH_SUBDIVISIONS},
            rounds,
        ),
        _growth("rasteriser over views", {n: _view_way(5, n, 128, device) for n in GROWTH_VIEWS}, rounds),
    ]


def _growth(what: str, ways: Mapping[int, Way], rounds: int) -> Growth:
    found = side_by_side(what, {str(size): way for size, way in ways.items()}, rounds)
    taken = [each.median for each in found.milliseconds.values()]
    return Growth(what, tuple(map(float, ways)), tuple(taken), slope(list(ways), taken))


def _grid_way(n_points: int, device: torch.device) -> Way:
    generator = torch.Generator(device).manual_seed(0)
    grid = HashGrid(GRID, generator)
    points = (torch.rand(n_points, 3, generator=generator, device=device) - 0.5) * (2 * GRID.half_size)
    return lambda: _step(grid(points), grid)


def _view_way(subdivisions: int, views: int, size: int, device: torch.device) -> Way:
    vertices, faces = _ball(subdivisions, device)
    cameras = turntable_cameras(views, 15.0, REFERENCE_FOV_DEG, size).to(device)
    return lambda: rasterize(vertices, faces, cameras, cull_backfaces=True)
