"""Faces that neighbours wind the same way round, and outward."""

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from torch import Tensor

_SAME, _TURNED = 1, 2
"""What a link of two faces says of their winding."""


def wound_alike(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Int[Tensor, "f 3"]:
    """The same faces, in their order: neighbours wound alike, and every connected part outward by its volume about its own middle.

    Edges of more than two faces join nothing. A part that cannot be wound alike (a Moebius strip) keeps a seam.
    """
    corners = faces.cpu().numpy()
    first, second, link = _links(corners)
    count = len(corners)
    graph = coo_array((np.tile(link, 2), (np.append(first, second), np.append(second, first))), (count, count)).tocsr()
    label = connected_components(graph, directed=False)[1]
    turned = _turned(graph, label)
    found = np.where(turned[:, None], corners[:, ::-1], corners)
    inward = _volumes(vertices.detach().cpu().double().numpy()[found], label) < 0
    found = np.where(inward[label][:, None], found[:, ::-1], found)
    return torch.from_numpy(np.ascontiguousarray(found)).to(faces)


def _links(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of faces that share an edge of no other face, and whether they go along it in the same direction."""
    start, stop = corners[:, [0, 1, 2]].reshape(-1), corners[:, [1, 2, 0]].reshape(-1)
    low, high = np.minimum(start, stop).astype(np.int64), np.maximum(start, stop).astype(np.int64)
    key = low * (int(corners.max(initial=0)) + 1) + high
    order = np.argsort(key, kind="stable")
    _, begin, times = np.unique(key[order], return_index=True, return_counts=True)
    one, other = order[begin[times == 2]], order[begin[times == 2] + 1]
    link = np.where((start < stop)[one] == (start < stop)[other], _TURNED, _SAME).astype(np.int8)
    return one // 3, other // 3, link


def _turned(graph: csr_array, label: np.ndarray) -> np.ndarray:
    """Which faces are turned so that each agrees with the one that it was reached from; the first of a part stays."""
    count = len(label)
    roots = np.unique(label, return_index=True)[1]
    joined = graph.tocoo()
    # One more node reaches the first face of every part.
    rows, columns = np.append(joined.row, np.full(len(roots), count)), np.append(joined.col, roots)
    values = np.append(joined.data, np.full(len(roots), _SAME))
    whole = coo_array((values, (rows, columns)), (count + 1, count + 1)).tocsr()
    order, before = breadth_first_order(whole, count, directed=True)
    reached = order[1:]
    flips = (np.asarray(whole[before[reached], reached]).reshape(-1) == _TURNED).tolist()
    turned = [False] * (count + 1)
    for face, parent, flip in zip(reached.tolist(), before[reached].tolist(), flips, strict=True):
        turned[face] = turned[parent] != flip
    return np.array(turned[:count], bool)


def _volumes(corners: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Of every part, six times, by cones from the middle of its corners: an open part has none about the origin."""
    middle = np.zeros((label.max(initial=-1) + 1, 3))
    np.add.at(middle, label, corners.mean(axis=1))
    corners = corners - (middle / np.bincount(label)[:, None])[label][:, None]
    return np.bincount(label, weights=np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])))
