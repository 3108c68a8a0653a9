"""Analytic antialiasing of silhouettes, which gives coverage a gradient with respect to vertex positions.

After nvdiffrast (arXiv:2011.03277, Sec. 3.4): where a silhouette edge crosses the line between two neighbouring pixel centres,
one of the two colours is blended into the other pixel by the distance of the crossing from the midpoint. We differ in that we
start from the mesh's silhouette edges, not from the faces seen by the two pixels, so that edges of faces smaller than a pixel
are found too.

Steep edges act between horizontal neighbours and shallow edges between vertical ones, so that the sum of coverage is the area
to first order and its gradient is the motion of the boundary, each piece counted once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.renderers.rasterizer import NEAREST_DEPTH, Fragments, faces_towards
from dreampolish.scene.cameras import Cameras, pixels_from_points_camera, points_camera_from_world


@dataclass(frozen=True)
class _Crossings:
    """Places where silhouettes pass between neighbouring pixel centres.

    inside, outside: (k,) pixel numbers, on the surface's side and beyond it. extent: (k,) in [0, 1], the crossing's distance
    from the inside centre, differentiable. depth: (k,) of the silhouette there.
    """

    inside: Tensor
    outside: Tensor
    extent: Tensor
    depth: Tensor


def antialias(
    colors: Float[Tensor, "b h w c"],
    fragments: Fragments,
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    cameras: Cameras,
    adjacency: Int[Tensor, "f 3"],
) -> Float[Tensor, "b h w c"]:
    """Blend colours across visible silhouettes; differentiable in `colors` and, through the edges' positions, in `vertices`.

    adjacency: `topology.face_adjacency(faces)`; edges without a neighbour count as silhouettes. Features thinner than a pixel
    that no pixel centre hits stay unseen and get no gradient.
    """
    points_camera = points_camera_from_world(vertices, cameras)
    with torch.no_grad():
        picture, start, stop = _silhouettes(points_camera, faces, adjacency)
    flat = points_camera.reshape(-1, 3)
    pixels = pixels_from_points_camera(points_camera, cameras).reshape(-1, 2)
    offset = picture * points_camera.shape[1]
    ends = torch.stack([_with_depth(pixels, flat, offset + start), _with_depth(pixels, flat, offset + stop)], dim=1)
    parts = [_crossings(ends, picture, cameras.size, axis) for axis in (0, 1)]
    return _blend(colors, fragments, [_visible(part, fragments) for part in parts])


def _with_depth(pixels: Tensor, points_camera: Tensor, rows: Tensor) -> Tensor:
    """(column, row, depth) of numbered vertices."""
    return torch.cat([pixels.index_select(0, rows), -points_camera.index_select(0, rows)[:, 2:]], dim=-1)


def _silhouettes(points_camera: Tensor, faces: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Camera, first and last vertex of every silhouette edge, the surface on its left as seen in the picture (row axis up)."""
    front = faces_towards(points_camera, faces) > 0
    neighbour_front = front[:, adjacency.clamp(min=0).reshape(-1)].reshape(*front.shape, 3)
    border = (adjacency < 0)[None]
    owned = front[..., None] & (border | ~neighbour_front)
    seen_from_behind = ~front[..., None] & border
    in_front = (points_camera[..., 2] < -NEAREST_DEPTH)[:, faces.reshape(-1)].reshape(*front.shape, 3).all(-1)
    picture, face, side = ((owned | seen_from_behind) & in_front[..., None]).nonzero(as_tuple=True)
    start, stop = faces[face, (side + 1) % 3], faces[face, (side + 2) % 3]
    flipped = ~front[picture, face]
    return picture, torch.where(flipped, stop, start), torch.where(flipped, start, stop)


def _crossings(ends: Tensor, picture: Tensor, size: int, axis: int) -> _Crossings:
    """Crossings between horizontal neighbours (axis 0, by steep edges) or vertical neighbours (axis 1, by shallow edges).

    ends: (m, 2, 3) column, row, depth. "Along" is the axis in which the neighbours differ, "across" the other one.
    """
    along, across, depth = ends[..., axis], ends[..., 1 - axis], ends[..., 2]
    run, rise = along[:, 1] - along[:, 0], across[:, 1] - across[:, 0]
    chosen = (rise.abs() >= run.abs() if axis == 0 else rise.abs() > run.abs()).nonzero()[:, 0]
    # Pixel centres k + 0.5 with low <= k + 0.5 < high: half-open, so that a chain of edges crosses each line once.
    low = (across.detach()[chosen].amin(-1) - 0.5).ceil().clamp(0, size).long()
    high = (across.detach()[chosen].amax(-1) - 0.5).ceil().clamp(0, size).long()
    owner = torch.repeat_interleave(torch.arange(len(chosen), device=ends.device), high - low)
    first = (high - low).cumsum(0) - (high - low)
    line = torch.arange(len(owner), device=ends.device) - first[owner] + low[owner]
    edge = chosen[owner]
    share = (line + 0.5 - across[edge, 0]) / rise[edge]
    place = along[edge, 0] + share * run[edge]
    # Depth is linear in 1 / depth along a projected edge.
    nearness = (1 - share) / depth[edge, 0] + share / depth[edge, 1]
    before = (place.detach() - 0.5).floor().long()
    # The surface is on the left with rows pointing up: before the crossing if the row falls (axis 0) or the column falls (axis
    # 1).
    surface_before = (rise[edge] < 0) if axis == 0 else (rise[edge] > 0)
    extent = torch.where(surface_before, place - (before + 0.5), before + 1.5 - place)
    inside, outside = torch.where(surface_before, before, before + 1), torch.where(surface_before, before + 1, before)
    kept = ((before >= 0) & (before < size - 1)).nonzero()[:, 0]
    stride_along, stride_across = (1, size) if axis == 0 else (size, 1)
    base = picture[edge] * size * size + line * stride_across
    return _Crossings(
        (base + inside * stride_along)[kept],
        (base + outside * stride_along)[kept],
        extent[kept],
        (1 / nearness.detach())[kept],
    )


def _visible(crossings: _Crossings, fragments: Fragments) -> _Crossings:
    """Crossings that can be seen: the inside pixel shows the nearer surface, the outside pixel one behind the edge.

    Of several between the same two centres only the outermost stays.
    """
    face, depth = fragments.face_index.reshape(-1), fragments.depth.detach().reshape(-1)
    depth = torch.where(face < 0, torch.inf, depth)
    inside, outside = crossings.inside, crossings.outside
    seen = (face[inside] >= 0) & (face[inside] != face[outside])
    seen &= (depth[outside] > crossings.depth) & (depth[outside] > depth[inside])
    pair = inside * 2 + (outside > inside)
    outermost = depth.new_zeros(2 * len(face)).scatter_reduce_(
        0, pair, torch.where(seen, crossings.extent.detach(), -1.0), reduce="amax"
    )
    kept = (seen & (crossings.extent.detach() >= outermost[pair])).nonzero()[:, 0]
    return _Crossings(inside[kept], outside[kept], crossings.extent[kept], crossings.depth[kept])


def _blend(colors: Tensor, fragments: Fragments, parts: list[_Crossings]) -> Tensor:
    """Add each crossing's share of the neighbour's colour: past the midpoint to the outside pixel, else to the inside one."""
    inside = torch.cat([part.inside for part in parts])
    outside = torch.cat([part.outside for part in parts])
    surplus = torch.cat([part.extent for part in parts]) - 0.5
    grows = surplus > 0
    receiver, giver = torch.where(grows, outside, inside), torch.where(grows, inside, outside)
    share = surplus.abs()
    flat = colors.reshape(-1, colors.shape[-1])
    total = share.new_zeros(len(flat)).index_add(0, receiver, share)
    share = share / total.detach().clamp(min=1).index_select(0, receiver)
    change = share[:, None] * (flat.index_select(0, giver) - flat.index_select(0, receiver))
    return flat.index_add(0, receiver, change).reshape(colors.shape)
