"""A true surface made rough, to see whether polishing finds it again: finer triangles, then noise along the normals.

Notation: V vertices, F faces, counter-clockwise seen from outside.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.mesh.topology import vertex_normals


def roughened(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], height: float, generator: torch.Generator
) -> Float[Tensor, "v 3"]:
    """Vertices, each moved along its normal by a normal draw of its own. height: the draws' standard deviation, world units."""
    draws = torch.randn(len(vertices), 1, generator=generator, dtype=vertices.dtype, device=generator.device)
    return vertices + vertex_normals(vertices, faces) * draws.to(vertices.device) * height


def subdivided(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], longest: float
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"]]:
    """The same surface with no edge longer than `longest`, world units: middles of longer ones become vertices of all their faces.

    Old vertices keep their numbers and places; no face gets a vertex inside of an edge.
    """
    if longest <= 0:
        raise ValueError(f"edges of at most {longest:g} cannot be made; give a length above 0")
    while True:
        # Edge k of a face runs from its corner k to the next one.
        ends = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1)
        long = (vertices[ends[..., 0]] - vertices[ends[..., 1]]).norm(dim=-1) > longest
        if not bool(long.any()):
            return vertices, faces
        split, number = torch.unique(ends[long].sort(dim=-1).values, dim=0, return_inverse=True)
        middle = torch.full_like(faces, -1)
        middle[long] = number + len(vertices)
        vertices = torch.cat([vertices, vertices[split].mean(dim=1)])
        faces = _split_faces(faces, middle)


def _split_faces(faces: Int[Tensor, "f 3"], middle: Int[Tensor, "f 3"]) -> Int[Tensor, "m 3"]:
    """Faces cut at the middles of their edges. middle: a vertex's number for each edge that has one, else -1."""
    count = (middle >= 0).sum(dim=1)
    found = [faces[count == 0]]
    for k in range(3):
        a, b, c = (faces.roll(-k, dims=1)[:, i] for i in range(3))
        ab, bc, ca = (middle.roll(-k, dims=1)[:, i] for i in range(3))
        one, two = (count == 1) & (ab >= 0), (count == 2) & (ab < 0)
        found += [_rows(one, a, ab, c), _rows(one, ab, b, c)]
        found += [_rows(two, a, b, bc), _rows(two, a, bc, ca), _rows(two, ca, bc, c)]
    three = count == 3
    (a, b, c), (ab, bc, ca) = faces.unbind(dim=1), middle.unbind(dim=1)
    found += [_rows(three, a, ab, ca), _rows(three, ab, b, bc), _rows(three, ca, bc, c), _rows(three, ab, bc, ca)]
    return torch.cat(found)


def _rows(chosen: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    return torch.stack([first, second, third], dim=1)[chosen]
