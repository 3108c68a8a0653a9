"""What a mesh's faces say: neighbours, components, closedness, normals, smoothness.

Notation: V vertices, F faces, counter-clockwise seen from outside. "Edge i" of a face is the one opposite its corner i.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Topology:
    """Figures of a mesh as it is indexed; vertices at the same place under different numbers are different vertices."""

    n_vertices: int
    n_faces: int
    n_components: int
    n_border_edges: int
    n_nonmanifold_edges: int
    euler: int

    @property
    def watertight(self) -> bool:
        """Every edge has exactly two faces, and there is at least one face."""
        return self.n_faces > 0 and self.n_border_edges == 0 and self.n_nonmanifold_edges == 0


def topology(faces: Int[Tensor, "f 3"]) -> Topology:
    """Counts over the vertices that faces use.

    Border edges have one face, non-manifold ones more than two; a sphere has euler 2.
    """
    used = torch.unique(faces)
    if len(faces) == 0:
        return Topology(n_vertices=0, n_faces=0, n_components=0, n_border_edges=0, n_nonmanifold_edges=0, euler=0)
    counts = torch.unique(_edge_keys(faces).reshape(-1), return_counts=True)[1]
    return Topology(
        n_vertices=len(used),
        n_faces=len(faces),
        n_components=int(component_of_face(faces).max()) + 1,
        n_border_edges=int((counts == 1).sum()),
        n_nonmanifold_edges=int((counts > 2).sum()),
        euler=len(used) - len(counts) + len(faces),
    )


def _edge_keys(faces: Tensor) -> Tensor:
    """One number for each undirected edge i of each face: (F, 3)."""
    first, second = faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]
    return torch.minimum(first, second) * (int(faces.max()) + 1 if faces.numel() else 1) + torch.maximum(first, second)


def face_adjacency(faces: Int[Tensor, "f 3"]) -> Int[Tensor, "f 3"]:
    """The face beyond each edge of each face, -1 at borders and where more than two faces meet."""
    keys, order = torch.sort(_edge_keys(faces).reshape(-1))
    same = torch.cat([keys[1:] == keys[:-1], keys.new_zeros(1, dtype=torch.bool)])
    after_same = torch.cat([same.new_zeros(1), same[:-1]])
    # A run of exactly two: this starts it, the next does not continue it.
    pair = (same & ~after_same & ~torch.cat([same[1:], same.new_zeros(1)])).nonzero()[:, 0]
    first, second = order[pair], order[pair + 1]
    adjacency = torch.full_like(keys, -1)
    adjacency[first] = torch.div(second, 3, rounding_mode="floor")
    adjacency[second] = torch.div(first, 3, rounding_mode="floor")
    return adjacency.reshape(-1, 3)


def component_of_face(faces: Int[Tensor, "f 3"]) -> Int[Tensor, " f"]:
    """The number of the vertex-connected component that each face belongs to, from 0."""
    from trimesh.graph import connected_component_labels  # as long an import as torch's

    corner = faces.cpu().numpy()
    n = int(corner.max()) + 1 if corner.size else 0
    label = connected_component_labels(np.concatenate([corner[:, :2], corner[:, 1:]]), node_count=n)
    of_face = np.unique(label[corner[:, 0]], return_inverse=True)[1]
    return torch.from_numpy(of_face.astype(np.int64)).to(faces.device)


def face_areas(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, " f"]:
    """Areas in square world units; differentiable except where 0."""
    return _scaled_face_normals(vertices, faces).norm(dim=-1) / 2


def without_crumbs(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], least_share: float
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"]]:
    """The mesh without components whose area is below `least_share` (0..1) of the largest's, and without unused vertices."""
    component = component_of_face(faces)
    area = torch.zeros(int(component.max()) + 1, device=faces.device, dtype=vertices.dtype)
    area.index_add_(0, component, face_areas(vertices.detach(), faces))
    return compacted(vertices, faces[(area >= least_share * area.max())[component]])


def compacted(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "f 3"]]:
    """The same faces over the vertices that they use, in the old order; differentiable in the vertices."""
    used, renumbered = torch.unique(faces, return_inverse=True)
    return vertices.index_select(0, used), renumbered


def welded(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], tolerance: float
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"]]:
    """Vertices that fall into one cell of `tolerance` world units become one; faces that collapse are dropped.

    Not differentiable.
    """
    cells = torch.round(vertices.detach() / tolerance).long()
    _, group = torch.unique(cells, dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1,), len(vertices), device=vertices.device)
    first.scatter_reduce_(0, group, torch.arange(len(vertices), device=vertices.device), reduce="amin")
    merged = group[faces]
    kept = (merged[:, 0] != merged[:, 1]) & (merged[:, 1] != merged[:, 2]) & (merged[:, 2] != merged[:, 0])
    return compacted(vertices.detach()[first], merged[kept])


def _scaled_face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    corner = vertices.index_select(0, faces.reshape(-1)).reshape(-1, 3, 3)
    return torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])


def _unit(vectors: Tensor) -> Tensor:
    """Unit vectors; the zero vector stays zero and gets a finite gradient."""
    return vectors / (vectors.square().sum(-1, keepdim=True) + 1e-24).sqrt()


def face_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Outward unit normals, world frame; zero for faces without area. Differentiable."""
    return _unit(_scaled_face_normals(vertices, faces))


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Area-weighted means of the adjacent faces' normals, unit; zero for unused vertices. Differentiable."""
    scaled = _scaled_face_normals(vertices, faces)
    summed = torch.zeros_like(vertices)
    for corner in range(3):
        summed = summed.index_add(0, faces[:, corner], scaled)
    return _unit(summed)


def normal_consistency_loss(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], adjacency: Int[Tensor, "f 3"]
) -> Float[Tensor, ""]:
    """Mean of 1 - cos between the normals of faces that share an edge: 0 on a plane, 2 on a fold; 0 if no two faces touch.

    adjacency: `face_adjacency(faces)`.
    """
    squares = _normal_differences(vertices, faces, adjacency)
    return squares.mean() / 2 if len(squares) else vertices.sum() * 0


VARIATION_SOFTNESS = 0.1
"""Length of a difference of unit normals below which the variation grows with its square; about 6 degrees. [choice]"""


def normal_variation_loss(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], adjacency: Int[Tensor, "f 3"]
) -> Float[Tensor, ""]:
    """Mean length of the difference between the unit normals of faces that share an edge, in [0, 2]; 0 if no two faces touch.

    The normals' total variation: one sharp edge costs no more than the same turn spread over many, so that noise goes and edges stay
    (source: Zhang et al. 2015, "Variational Mesh Denoising Using Total Variation and Piecewise Constant Function Space").
    adjacency: `face_adjacency(faces)`.
    """
    squares = _normal_differences(vertices, faces, adjacency)
    if not len(squares):
        return vertices.sum() * 0
    return ((squares + VARIATION_SOFTNESS**2).sqrt() - VARIATION_SOFTNESS).mean()


def _normal_differences(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], adjacency: Int[Tensor, "f 3"]
) -> Float[Tensor, " e"]:
    """2 - 2 cos for each pair of faces that share an edge: the square of the difference of two unit normals."""
    face, side = (adjacency > torch.arange(len(faces), device=faces.device)[:, None]).nonzero(as_tuple=True)
    normals = face_normals(vertices, faces)
    return 2 * (1 - (normals.index_select(0, face) * normals.index_select(0, adjacency[face, side])).sum(-1))


def laplacian_loss(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean squared distance of used vertices from the mean of their neighbours (uniform Laplacian), square world units.

    A neighbour counts once for every face that joins the two, which matters at borders only.
    """
    start, stop = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    ones = torch.ones(len(start), device=vertices.device, dtype=vertices.dtype)
    summed = torch.zeros_like(vertices).index_add(0, start, vertices.index_select(0, stop))
    summed = summed.index_add(0, stop, vertices.index_select(0, start))
    degree = torch.zeros(len(vertices), device=vertices.device, dtype=vertices.dtype)
    degree = degree.index_add(0, start, ones).index_add(0, stop, ones)
    used: Bool[Tensor, " v"] = degree > 0
    offset = vertices[used] - summed[used] / degree[used][:, None]
    return offset.square().sum(-1).mean()
