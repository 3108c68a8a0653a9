"""Reduction to a triangle budget, and the mending of edges at which more than two faces meet.

Quadric edge collapse does not look whether a collapse pinches the surface: two sheets may then share an edge. Such edges are taken
apart again: faces that cover each other are dropped, the faces around the edge are paired so that each pair bounds solid matter, and
every sheet gets vertices of its own. The places of vertices stay as they are, and a closed surface stays closed.
"""

import fast_simplification
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from dreampolish.mesh.topology import compacted

_ROUNDS = 8
"""Rounds of mending at most: each cuts every face at one crowded edge, and few faces have more. [choice]"""


def decimated(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], max_faces: int
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"]]:
    """The mesh at about `max_faces` triangles, without non-manifold edges; returned as it is if it has no more than that.

    Not differentiable. A mesh in many small pieces may keep more triangles than asked for: pieces are not merged. Raises ValueError
    for fewer than 4.
    """
    if max_faces < 4:
        raise ValueError(f"max_faces is {max_faces}: a closed surface needs at least 4 triangles")
    if len(faces) <= max_faces:
        return vertices.detach(), faces
    points, triangles = fast_simplification.simplify(
        vertices.detach().cpu().numpy(), faces.to(torch.int32).cpu().numpy(), target_count=max_faces
    )
    reduced = torch.from_numpy(np.asarray(triangles, dtype=np.int64)).to(faces.device)
    return mended(torch.from_numpy(np.asarray(points, dtype=np.float32)).to(vertices.device), reduced)


def mended(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"]]:
    """The same surface with at most two faces at every edge and one fan of faces around every vertex.

    Faces that collapsed or that cover another with the opposite side are dropped; closed surfaces stay closed. Not differentiable.
    """
    points, corners = vertices.detach().cpu().numpy(), _without_doubles(faces.cpu().numpy())
    for _ in range(_ROUNDS if len(corners) else 0):
        corners, source = _with_own_vertices(corners, _paired_edges(points, corners))
        points = points[source]
        crowded = _crowded_edges(corners)
        if len(crowded) == 0:
            break
        points, corners = _with_midpoints(points, corners, crowded)
    whole = torch.from_numpy(corners.astype(np.int64)).to(faces.device)
    return compacted(torch.from_numpy(points).to(vertices.device), whole)


def _without_doubles(faces: np.ndarray) -> np.ndarray:
    """Without faces of fewer than three vertices; of those with the same three only the surplus of one orientation, at most one."""
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    faces = faces[distinct]
    # Rotated so that the least vertex leads: then two faces are equal, or one is the other's back.
    lead = faces.argmin(1)
    turned = faces[np.arange(len(faces))[:, None], (lead[:, None] + np.arange(3)) % 3]
    forward = turned[:, 1] < turned[:, 2]
    group = np.unique(np.sort(turned, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    surplus = np.bincount(group, weights=np.where(forward, 1, -1))
    wanted = np.where(forward, surplus[group] > 0, surplus[group] < 0)
    first = np.zeros(len(faces), dtype=bool)
    chosen = wanted.nonzero()[0]
    first[chosen[np.unique(group[chosen], return_index=True)[1]]] = True
    return faces[first]


def _half_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-edge 3 f + k runs from corner k of face f to the next one: starts, ends, and a number of the undirected edge."""
    start, end = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    keys = np.minimum(start, end).astype(np.int64) * (int(faces.max()) + 1) + np.maximum(start, end)
    return start, end, np.unique(keys, return_inverse=True)[1].reshape(-1)


def _paired_edges(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Pairs (p, 2) of opposite half-edges across which the surface goes on."""
    start, _, edge = _half_edges(faces)
    order = np.argsort(edge, kind="stable")
    first = np.searchsorted(edge[order], np.arange(edge.max() + 1))
    count = np.bincount(edge)
    simple = first[count == 2]
    pairs = np.stack([order[simple], order[simple + 1]], axis=1)
    pairs = pairs[start[pairs[:, 0]] != start[pairs[:, 1]]]
    around = [order[first[e] : first[e] + count[e]] for e in (count > 2).nonzero()[0]]
    return np.concatenate([pairs, *(_pairs_around(points, faces, halves) for halves in around)])


def _pairs_around(points: np.ndarray, faces: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """Pairs among the half-edges of one undirected edge, each with the nearest opposite one through solid matter."""
    face, corner = halves // 3, halves % 3
    start, end = faces[face, corner], faces[face, (corner + 1) % 3]
    low, high = min(start[0], end[0]), max(start[0], end[0])
    axis = points[high] - points[low]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-12)
    apex = points[faces[face, (corner + 2) % 3]] - points[low]
    side = np.eye(3)[np.abs(axis).argmin()]
    side = side - (side @ axis) * axis
    angle = np.arctan2(apex @ np.cross(axis, side), apex @ side)
    upward, downward = (start == low).nonzero()[0], (start == high).nonzero()[0]
    # An upward face's outward normal points to growing angles, so that solid matter lies on the side of smaller ones.
    turn = (angle[upward][:, None] - angle[downward][None]) % (2 * np.pi)
    pairs = []
    for _ in range(min(len(upward), len(downward))):
        best = np.unravel_index(turn.argmin(), turn.shape)
        pairs.append((halves[upward[best[0]]], halves[downward[best[1]]]))
        turn[best[0]], turn[:, best[1]] = np.inf, np.inf
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _with_own_vertices(faces: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces over new vertices, one for each fan of corners joined by pairs; and each new vertex's number before."""
    following = pairs // 3 * 3 + (pairs % 3 + 1) % 3
    joined = np.concatenate([np.stack([pairs[:, 0], following[:, 1]], 1), np.stack([following[:, 0], pairs[:, 1]], 1)])
    n = faces.size
    graph = coo_matrix((np.ones(len(joined), dtype=bool), (joined[:, 0], joined[:, 1])), shape=(n, n))
    fan = connected_components(graph, directed=False)[1]
    source = np.zeros(int(fan.max()) + 1, dtype=np.int64)
    source[fan] = faces.reshape(-1)
    return fan.reshape(-1, 3), source


def _crowded_edges(faces: np.ndarray) -> np.ndarray:
    """Numbers of undirected edges that still have more than two half-edges."""
    return (np.bincount(_half_edges(faces)[2]) > 2).nonzero()[0]


def _with_midpoints(points: np.ndarray, faces: np.ndarray, crowded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One pair of faces at each crowded edge is cut at a new vertex in the edge's middle, so that it no longer shares the edge."""
    _, _, edge = _half_edges(faces)
    pairs = _paired_edges(points, faces)
    pairs = pairs[np.isin(edge[pairs[:, 0]], crowded)]
    chosen = pairs[np.unique(edge[pairs[:, 0]], return_index=True)[1]]
    # A face is cut once a round; what is left waits for the next.
    kept: list[np.ndarray] = []
    touched: set[int] = set()
    for pair in chosen:
        owners = set((pair // 3).tolist())
        if not owners & touched:
            kept.append(pair)
            touched |= owners
    added, cut = [], []
    for number, pair in enumerate(kept):
        middle = len(points) + number
        for half in pair:
            a, b, c = faces[half // 3][(half % 3 + np.arange(3)) % 3]
            cut += [(a, middle, c), (middle, b, c)]
        added.append((points[a] + points[b]) / 2)
    rest = np.delete(faces, sorted(touched), axis=0)
    return np.concatenate([points, np.array(added, dtype=points.dtype)]), np.concatenate([rest, np.array(cut)])
