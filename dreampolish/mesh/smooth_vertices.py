"""Vertices moved through a smoothing reparametrisation, so that a gradient step deforms the surface smoothly.

Notation: V vertices, L the combinatorial Laplacian (degree on the diagonal, -1 per edge), M = I + smoothness * L. The optimiser
sees u = M v; vertices are v = M^-1 u, and gradients of u are M^-1 dv: steps are diffused over the surface (source: Nicolet et al.,
"Large Steps in Inverse Rendering of Geometry", 2021, Eq. 9).
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor
from torch.autograd.function import FunctionCtx


def laplacian_matrix(faces: Int[Tensor, "f 3"], n_vertices: int) -> sparse.csc_matrix:
    """The combinatorial Laplacian of a mesh's edges, (V, V)."""
    corners = faces.cpu().numpy()
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    ones = np.ones(len(ends))
    adjacency = sparse.coo_matrix((ones, (ends[:, 0], ends[:, 1])), shape=(n_vertices, n_vertices))
    adjacency = (adjacency + adjacency.T).tocsc()
    return sparse.csc_matrix(sparse.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency)


class _Solve(torch.autograd.Function):
    """M^-1 x for a symmetric factorised M; its own adjoint."""

    @staticmethod
    def forward(ctx: FunctionCtx, right: Tensor, factors: SuperLU) -> Tensor:
        ctx.factors = factors  # type: ignore[attr-defined]
        return _solved(factors, right)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Any) -> tuple[Tensor, None]:
        return _solved(ctx.factors, gradients[0]), None  # type: ignore[attr-defined]


def _solved(factors: SuperLU, right: Tensor) -> Tensor:
    solution = factors.solve(right.detach().cpu().double().numpy())
    return torch.from_numpy(solution).to(right)


class SmoothVertices(torch.nn.Module):
    """A mesh's vertices as a function of a smoothed parameter.

    smoothness: weight of the Laplacian, >= 0; 0 leaves vertices as plain parameters. The factorisation happens on the CPU, once.
    """

    def __init__(self, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], smoothness: float) -> None:
        super().__init__()
        matrix = sparse.identity(len(vertices), format="csc") + smoothness * laplacian_matrix(faces, len(vertices))
        self._factors = splu(sparse.csc_matrix(matrix))
        start = matrix @ vertices.detach().cpu().double().numpy()
        self.smoothed = torch.nn.Parameter(torch.from_numpy(start).to(vertices))

    def forward(self) -> Float[Tensor, "v 3"]:
        """The vertices, world frame; differentiable in `smoothed`."""
        return _Solve.apply(self.smoothed, self._factors)
