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
from scipy.sparse.linalg import splu
from torch import Tensor
from torch.autograd.function import FunctionCtx

MOST_FACTORISED = 60_000
"""Vertices up to which the system is factorised: 2.4 s for 41,000, 33 s for 164,000, on one busy core. [choice]"""

RELATIVE_ERROR = 1e-9
"""Residual, relative to the right side, at which conjugate gradients stop."""

MOST_ITERATIONS = 1000
"""Of conjugate gradients; the diagonal bounds the condition at 1 + 2 smoothness times the largest degree, which needs some 200."""


def laplacian_matrix(faces: Int[Tensor, "f 3"], n_vertices: int) -> sparse.csc_matrix:
    """The combinatorial Laplacian of a mesh's edges, (V, V)."""
    corners = faces.cpu().numpy()
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    ends = np.unique(np.sort(ends, axis=1), axis=0)
    ones = np.ones(len(ends))
    adjacency = sparse.coo_matrix((ones, (ends[:, 0], ends[:, 1])), shape=(n_vertices, n_vertices))
    adjacency = (adjacency + adjacency.T).tocsc()
    return sparse.csc_matrix(sparse.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency)


class _Solver:
    """Solves M x = b for a symmetric positive definite M. Up to MOST_FACTORISED rows by a factorisation, once; else by conjugate
    gradients, which take little memory.
    """

    def __init__(self, matrix: sparse.csc_matrix) -> None:
        self._factors = None
        if matrix.shape[0] <= MOST_FACTORISED:
            self._factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
            return
        self._rows, self._inverse_diagonal = matrix.tocsr(), 1 / matrix.diagonal()[:, None]

    def solve(self, right: np.ndarray) -> np.ndarray:
        """x (V, 3) for b (V, 3)."""
        return self._by_conjugate_gradients(right) if self._factors is None else self._factors.solve(right)

    def _by_conjugate_gradients(self, right: np.ndarray) -> np.ndarray:
        """All columns at once, preconditioned by the diagonal (Hestenes and Stiefel, 1952)."""
        solution, residual = np.zeros_like(right), right.copy()
        direction = self._inverse_diagonal * residual
        product = (residual * direction).sum(0)
        enough = RELATIVE_ERROR**2 * np.maximum((right * right).sum(0), 1e-300)
        for _ in range(MOST_ITERATIONS):
            if bool(((residual * residual).sum(0) <= enough).all()):
                break
            along = self._rows @ direction
            step = product / np.maximum((direction * along).sum(0), 1e-300)
            solution += step * direction
            residual -= step * along
            scaled = self._inverse_diagonal * residual
            before, product = product, (residual * scaled).sum(0)
            direction = scaled + product / np.maximum(before, 1e-300) * direction
        return solution


class _Solve(torch.autograd.Function):
    """M^-1 x for a symmetric M; its own adjoint."""

    @staticmethod
    def forward(ctx: FunctionCtx, right: Tensor, solver: _Solver) -> Tensor:
        ctx.solver = solver  # type: ignore[attr-defined]
        return _solved(solver, right)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Any) -> tuple[Tensor, None]:
        return _solved(ctx.solver, gradients[0]), None  # type: ignore[attr-defined]


def _solved(solver: _Solver, right: Tensor) -> Tensor:
    return torch.from_numpy(solver.solve(right.detach().cpu().double().numpy())).to(right)


class SmoothVertices(torch.nn.Module):
    """A mesh's vertices as a function of a smoothed parameter.

    smoothness: weight of the Laplacian, >= 0; 0 leaves vertices as plain parameters. The system is solved on the CPU.
    """

    def __init__(self, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], smoothness: float) -> None:
        super().__init__()
        matrix = sparse.identity(len(vertices), format="csc") + smoothness * laplacian_matrix(faces, len(vertices))
        self._solver = _Solver(sparse.csc_matrix(matrix))
        start = matrix @ vertices.detach().cpu().double().numpy()
        self.smoothed = torch.nn.Parameter(torch.from_numpy(start).to(vertices))

    def forward(self) -> Float[Tensor, "v 3"]:
        """The vertices, world frame; differentiable in `smoothed`."""
        return _Solve.apply(self.smoothed, self._solver)
