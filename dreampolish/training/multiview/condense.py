"""A painted mesh as a few thousand triangles with corner colours, close enough for pictures of 128 pixels.

The shape is decimated without regard to colour; then faces over which the paint varies are split along their longest edges until
the budget is used, corners take the paint nearest to them, and see-through faces go. Vertices are split at creases last, so that
smooth normals follow from the faces alone, after any deformation too.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from dreampolish.data.library import GLASS_GREY, PaintedMesh
from dreampolish.training.multiview.pack import CondensedMesh

CREASE_DEG = 40.0
"""Angle between faces from which on their edge stays hard."""

PROBES = np.array(
    [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.45, 0.45, 0.1], [0.1, 0.45, 0.45], [0.45, 0.1, 0.45], [1 / 3] * 3]
)
"""Barycentric places (7, 3) where a face's paint is looked at; the first three stand for its corners."""


@dataclass(frozen=True)
class SurfaceSamples:
    """Points of a surface: points (K, 3); values (K, 5): red, green, blue in [0, 1], main paint and opacity, 0 or 1."""

    points: np.ndarray
    values: np.ndarray


def surface_places(triangles: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Faces (K,) and barycentric weights (K, 3) of about n points spread by area, at least one on every face."""
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    chosen = rng.choice(len(triangles), size=n, p=area / area.sum())
    faces = np.concatenate([chosen, np.arange(len(triangles))])
    weights = np.sort(rng.random((len(faces), 2)), axis=1)
    return faces, np.stack([weights[:, 0], weights[:, 1] - weights[:, 0], 1 - weights[:, 1]], axis=1)


def sample_painted(mesh: PaintedMesh, main_paint: int, n: int, rng: np.random.Generator) -> SurfaceSamples:
    """Samples of a library model: its paints and textures, glass mixed with grey."""
    faces, weights = surface_places(mesh.vertices[mesh.faces].astype(np.float64), n, rng)
    paints = mesh.face_paints[faces]
    rgb, opaque = mesh.colors[paints].astype(np.float64), np.ones(len(faces))
    uvs = (mesh.corner_uvs[faces] * weights[..., None]).sum(axis=1)
    for paint in np.unique(paints):
        texture = mesh.textures[paint]
        if texture is not None:
            here = paints == paint
            height, width = texture.shape[:2]
            columns = np.floor(uvs[here, 0] * width).astype(np.int64) % width
            rows = np.floor((1 - uvs[here, 1]) * height).astype(np.int64) % height
            texels = texture[rows, columns] / 255
            rgb[here], opaque[here] = texels[:, :3], texels[:, 3] >= 0.5
    opacity = mesh.opacities[paints][:, None]
    rgb = rgb * opacity + GLASS_GREY * (1 - opacity)
    points = (mesh.vertices[mesh.faces[faces]] * weights[..., None]).sum(axis=1)
    return SurfaceSamples(points, np.column_stack([rgb, paints == main_paint, opaque]))


def sample_colored(
    vertices: np.ndarray, faces: np.ndarray, corner_colors: np.ndarray, n: int, rng: np.random.Generator
) -> SurfaceSamples:
    """Samples of a mesh with corner colours (F, 3, 3) in [0, 1]; its main paint is what lies near its commonest colour."""
    chosen, weights = surface_places(vertices[faces].astype(np.float64), n, rng)
    rgb = (corner_colors[chosen] * weights[..., None]).sum(axis=1)
    cells = np.clip((rgb[:n] * 8).astype(np.int64), 0, 7) @ np.array([64, 8, 1])
    commonest = np.bincount(cells, minlength=512).argmax()
    center = np.median(rgb[:n][cells == commonest], axis=0)
    near = np.abs(rgb - center).max(axis=1) < 0.16
    points = (vertices[faces[chosen]] * weights[..., None]).sum(axis=1)
    return SurfaceSamples(points, np.column_stack([rgb, near, np.ones(len(rgb))]))


def condense(
    vertices: np.ndarray, faces: np.ndarray, samples: SurfaceSamples, shape_faces: int, max_faces: int
) -> CondensedMesh:
    """The mesh at `shape_faces` triangles at most, refined by paint to at most `max_faces`."""
    points, triangles = merged(vertices, faces)
    if len(triangles) > shape_faces:
        simple = fast_simplification.simplify(points.astype(np.float32), triangles.astype(np.int32), target_count=shape_faces)
        points, triangles = merged(np.asarray(simple[0], np.float64), np.asarray(simple[1], np.int64))
    triangles = _largest(points, triangles, max_faces)
    tree = cKDTree(samples.points)
    points, triangles = refined(points, faces=triangles, samples=samples, tree=tree, max_faces=max_faces)
    near = tree.query(_probe_points(points, triangles)[:, :3].reshape(-1, 3), k=3, workers=1)[1]
    found = samples.values[near].mean(axis=1).reshape(-1, 3, 5)
    seen = found[..., 4].mean(axis=1) > 0.5
    if not seen.any():
        seen[:] = True
    points, triangles = split_at_creases(points, triangles[seen], CREASE_DEG)
    return CondensedMesh(points.astype(np.float32), triangles, found[seen, :, :3].astype(np.float32), found[seen, :, 3] > 0.5)


def merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that coincide made one, faces without area and unused vertices dropped."""
    _, first, group = np.unique(np.round(vertices, 5), axis=0, return_index=True, return_inverse=True)
    points, triangles = vertices[first].astype(np.float64), group.reshape(-1)[faces]
    doubled = np.cross(points[triangles[:, 1]] - points[triangles[:, 0]], points[triangles[:, 2]] - points[triangles[:, 0]])
    triangles = triangles[np.linalg.norm(doubled, axis=1) > 1e-10]
    used, compact = np.unique(triangles, return_inverse=True)
    return points[used], compact.reshape(-1, 3)


def _largest(points: np.ndarray, faces: np.ndarray, n: int) -> np.ndarray:
    """The n faces of the largest area."""
    corners = points[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return faces[np.sort(np.argsort(-area)[:n])]


def _probe_points(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The probes' places (F, 7, 3)."""
    return np.einsum("pc,fcx->fpx", PROBES, points[faces])


def refined(
    points: np.ndarray, faces: np.ndarray, samples: SurfaceSamples, tree: cKDTree, max_faces: int
) -> tuple[np.ndarray, np.ndarray]:
    """Faces over which the paint varies, split until `max_faces`, until nothing varies or until edges are as short as a pixel."""
    for _ in range(8):
        spare = (max_faces - len(faces)) // 3
        if spare < 8:
            break
        found = samples.values[tree.query(_probe_points(points, faces).reshape(-1, 3), workers=1)[1]].reshape(-1, 7, 5)
        spread = np.ptp(found[..., [0, 1, 2, 4]], axis=1).max(axis=1)
        corners = points[faces]
        lengths = np.linalg.norm(corners[:, [1, 2, 0]] - corners, axis=2)
        worth = np.where((spread > 0.12) & (lengths.max(axis=1) > 0.03), spread * lengths.max(axis=1) ** 2, 0)
        chosen = np.argsort(-worth)[: min(spare, int((worth > 0).sum()))]
        if len(chosen) == 0:
            break
        starts, ends = faces, faces[:, [1, 2, 0]]
        keys = np.minimum(starts, ends) * np.int64(len(points)) + np.maximum(starts, ends)
        marked = np.unique(keys[chosen, lengths[chosen].argmax(axis=1)])
        points, faces = split_edges(points, faces, marked)
    return points, faces


def split_edges(points: np.ndarray, faces: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every face with marked edges cut at their middles. marked: sorted keys low * V + high of edges."""
    n = np.int64(len(points))
    starts, ends = faces, faces[:, [1, 2, 0]]
    keys = np.minimum(starts, ends) * n + np.maximum(starts, ends)
    place = np.searchsorted(marked, keys).clip(max=len(marked) - 1)
    hit = marked[place] == keys
    middle = n + place
    points = np.concatenate([points, (points[marked // n] + points[marked % n]) / 2])
    count = hit.sum(axis=1)
    parts = [faces[count == 0]]
    # Turned so that a single mark is on edge 0, and with two marks the unmarked edge is edge 2.
    turn = np.where(count == 1, hit.argmax(axis=1), np.where(count == 2, (~hit).argmax(axis=1) + 1, 0))
    order = (turn[:, None] + np.arange(3)) % 3
    rows = np.arange(len(faces))[:, None]
    (a, b, c), (m, k, o) = faces[rows, order].T, middle[rows, order].T
    templates = {
        1: ((a, m, c), (m, b, c)),
        2: ((m, b, k), (a, m, k), (a, k, c)),
        3: ((a, m, o), (m, b, k), (o, k, c), (m, k, o)),
    }
    for number, triangles in templates.items():
        here = count == number
        parts += [np.stack(corners, axis=1)[here] for corners in triangles]
    return points, np.concatenate(parts)


def split_at_creases(points: np.ndarray, faces: np.ndarray, crease_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """One vertex for every smooth fan of faces around a point: normals averaged over a vertex's faces then keep hard edges."""
    corners = points[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    starts, ends = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    keys = np.minimum(starts, ends) * np.int64(len(points)) + np.maximum(starts, ends)
    order = np.argsort(keys, kind="stable")
    one, other = order[:-1], order[1:]
    smooth = (keys[one] == keys[other]) & (
        (normals[one // 3] * normals[other // 3]).sum(axis=1) > np.cos(np.radians(crease_deg))
    )
    one, other = one[smooth], other[smooth]
    following = np.arange(len(starts)).reshape(-1, 3)[:, [1, 2, 0]].reshape(-1)
    # Half-edge h runs from corner h to the following one; equal ends of two half-edges are one vertex.
    same = starts[one] == starts[other]
    left = np.concatenate([one, following[one]])
    right = np.concatenate([np.where(same, other, following[other]), np.where(same, following[other], other)])
    n = len(starts)
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(n, n))
    count, fan = connected_components(graph, directed=False)
    first = np.zeros(count, np.int64)
    first[fan] = np.arange(n)
    return points[starts[first]], fan.reshape(-1, 3)
