"""Marching tetrahedra: the zero level set of values on a tetrahedral grid, differentiable in values and vertices.

Source: Doi and Koide 1991 for the cases; DMTet (arXiv:2111.04276), Sec. 3.1 for the differentiable use.
"""

from itertools import permutations

import torch
from jaxtyping import Float, Int
from torch import Tensor


class EmptyLevelSetError(ValueError):
    """The values do not change sign anywhere: there is no surface."""


def _is_even(order: tuple[int, ...]) -> bool:
    return sum(order[i] > order[j] for i in range(len(order)) for j in range(i + 1, len(order))) % 2 == 0


def _case_triangles(code: int) -> list[list[tuple[int, int]]]:
    """Triangles of one sign pattern (bit i set: local vertex i is inside) as triples of (vertex, vertex) tetrahedron edges.

    For a positively oriented (a, b, c, d) the triangle (ab, ac, ad) faces away from a, and the quadrilateral
    (ac, ad, bd, bc) faces from {a, b} to {c, d}.
    """
    inside = {i for i in range(4) if code >> i & 1}
    lonely = inside if len(inside) < 3 else set(range(4)) - inside
    order = next(p for p in permutations(range(4)) if set(p[: len(lonely)]) == lonely and _is_even(p))
    a, b, c, d = order
    if len(inside) == 2:
        return [[(a, c), (a, d), (b, d)], [(a, c), (b, d), (b, c)]]
    triangle = [(a, b), (a, c), (a, d)]
    return [triangle if len(inside) == 1 else triangle[::-1]]


_TRIANGLES = {code: _case_triangles(code) for code in range(1, 15)}


def marching_tetrahedra(
    vertices: Float[Tensor, "v 3"], sdf: Float[Tensor, " v"], tets: Int[Tensor, "t 4"]
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "f 3"]]:
    """The surface sdf = 0 (negative inside) as vertices, differentiable in `vertices` and `sdf`, and outward-facing faces.

    `tets` must be positively oriented. The surface is closed where it stays inside the grid, open where it meets the boundary.
    A value of exactly 0 counts as outside and gives triangles without area. Which triangles there are does not carry a
    gradient. Raises EmptyLevelSetError if all values have one sign, ValueError if any is not finite.
    """
    if not bool(torch.isfinite(sdf).all()):
        raise ValueError("the signed distances hold NaN or infinity: no level set can be taken")
    inside = sdf.detach() < 0
    code = _sign_codes(inside, tets)
    crossed = ((code > 0) & (code < 15)).nonzero()[:, 0]
    if not len(crossed):
        side = "inside" if bool(inside.all()) else "outside"
        raise EmptyLevelSetError(
            f"the level set is empty: every grid vertex (or every tetrahedron) lies {side}; "
            "lower or raise the level, or restart this stage from an earlier geometry"
        )
    keys = _corner_keys(tets.index_select(0, crossed), code.index_select(0, crossed), len(vertices))
    unique, corner = torch.unique(keys, return_inverse=True)
    first = torch.div(unique, len(vertices), rounding_mode="floor")
    return _crossings(vertices, sdf, first, unique - first * len(vertices)), corner.reshape(-1, 3)


def _sign_codes(inside: Tensor, tets: Tensor) -> Tensor:
    """A number 0..15 for every tetrahedron, bit i: its vertex i is inside."""
    signs = inside.to(torch.uint8)
    code = signs.index_select(0, tets[:, 0])
    for i in range(1, 4):
        code = code + (signs.index_select(0, tets[:, i]) << i)
    return code


def _corner_keys(tets: Tensor, code: Tensor, n_vertices: int) -> Tensor:
    """For every corner of every triangle, the grid edge it lies on as low * n_vertices + high: (3 F,). tets, code: those crossed."""
    parts = []
    for value, triangles in _TRIANGLES.items():
        crossed = tets[code == value]
        for triangle in triangles:
            ends = torch.stack([crossed[:, list(edge)] for edge in triangle], dim=1)
            parts.append((ends.amin(-1) * n_vertices + ends.amax(-1)).reshape(-1))
    return torch.cat(parts)


def _crossings(vertices: Tensor, sdf: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Linear interpolation of the zero along grid edges (DMTet, Eq. 2)."""
    value_first, value_second = sdf.index_select(0, first), sdf.index_select(0, second)
    share = (value_first / (value_first - value_second))[:, None]
    start, stop = vertices.index_select(0, first), vertices.index_select(0, second)
    return start + share * (stop - start)
