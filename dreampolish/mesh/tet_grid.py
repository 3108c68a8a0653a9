"""A regular tetrahedral grid over the scene box, on the body-centred cubic lattice.

The lattice has a vertex at every corner and in the middle of every cubic cell. Two cells that share a face contribute the four
tetrahedra spanned by their two centres and one side of that face, all congruent; a face on the box's boundary contributes two
halves of a pyramid. Neighbours share whole faces, so that a level set inside the box is closed.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TetGrid:
    """Vertices in world units, positively oriented tetrahedra and unique edges.

    Positive: the determinant of the three edges that leave the first vertex is > 0.
    """

    vertices: Float[Tensor, "v 3"]
    tets: Int[Tensor, "t 4"]
    edges: Int[Tensor, "e 2"]
    spacing: float
    """Distance between neighbouring layers of vertices along an axis, world units."""

    def to(self, device: torch.device | str) -> "TetGrid":
        """The same grid on another device."""
        return TetGrid(self.vertices.to(device), self.tets.to(device), self.edges.to(device), self.spacing)


def tet_grid(resolution: int, half_size: float) -> TetGrid:
    """A grid over [-half_size, half_size]^3 with `resolution` layer spacings along an axis, i.e. resolution / 2 cubic cells.

    resolution: an even number >= 2; 64 gives 68,705 vertices and 390,000 tetrahedra, 128 eight times as many.
    Raises ValueError for an odd or too small resolution.
    """
    if resolution < 2 or resolution % 2:
        raise ValueError(f"resolution is {resolution}: a tetrahedral grid needs an even number of layers, 2 or more")
    n = resolution // 2
    corners = torch.arange((n + 1) ** 3).reshape(n + 1, n + 1, n + 1)
    centres = (n + 1) ** 3 + torch.arange(n**3).reshape(n, n, n)
    cell = 2 * half_size / n
    along = torch.arange(n + 1, dtype=torch.float32) * cell - half_size
    middle = along[:-1] + cell / 2
    vertices = torch.cat([torch.cartesian_prod(along, along, along), torch.cartesian_prod(middle, middle, middle)])
    parts = [part for axis in range(3) for part in _tets_across(corners.movedim(axis, 0), centres.movedim(axis, 0))]
    tets = _oriented(vertices, torch.cat(parts))
    return TetGrid(vertices, tets, _edges(corners, centres), cell / 2)


def _ring(corners: Tensor) -> Tensor:
    """The four corners of every face normal to the first axis, in cyclic order: (layers, m, m, 4)."""
    return torch.stack([corners[:, :-1, :-1], corners[:, 1:, :-1], corners[:, 1:, 1:], corners[:, :-1, 1:]], dim=-1)


def _tets_across(corners: Tensor, centres: Tensor) -> list[Tensor]:
    """Tetrahedra around the faces normal to the first axis: four inside the box, two on each of its two boundary faces."""
    ring = _ring(corners)
    inner, sides = ring[1:-1], []
    below, above = centres[:-1], centres[1:]
    for k in range(4):
        sides.append(torch.stack([below, above, inner[..., k], inner[..., (k + 1) % 4]], dim=-1).reshape(-1, 4))
    for layer in (0, -1):
        for k in (1, 2):
            sides.append(
                torch.stack(
                    [centres[layer], ring[layer, ..., 0], ring[layer, ..., k], ring[layer, ..., k + 1]], dim=-1
                ).reshape(-1, 4)
            )
    return sides


def _oriented(vertices: Tensor, tets: Tensor) -> Tensor:
    """The same tetrahedra with positive volume: the last two vertices are swapped where the volume is negative."""
    corner = vertices.index_select(0, tets.reshape(-1)).reshape(-1, 4, 3)
    edges = corner[:, 1:] - corner[:, :1]
    volume = (torch.linalg.cross(edges[:, 0], edges[:, 1]) * edges[:, 2]).sum(-1)
    swapped = tets[:, [0, 1, 3, 2]]
    return torch.where((volume > 0)[:, None], tets, swapped)


def _edges(corners: Tensor, centres: Tensor) -> Tensor:
    """Every edge of the lattice once: corner-corner, centre-centre, centre-corner, and the boundary faces' diagonals."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for axis in range(3):
        along, middle = corners.movedim(axis, 0), centres.movedim(axis, 0)
        pairs += [(along[:-1], along[1:]), (middle[:-1], middle[1:])]
        ring = _ring(along)
        pairs += [(ring[layer, ..., 0], ring[layer, ..., 2]) for layer in (0, -1)]
    for i in (slice(None, -1), slice(1, None)):
        for j in (slice(None, -1), slice(1, None)):
            pairs += [(corners[i, j, k], centres) for k in (slice(None, -1), slice(1, None))]
    return torch.cat([torch.stack([a.reshape(-1), b.reshape(-1)], dim=-1) for a, b in pairs])
