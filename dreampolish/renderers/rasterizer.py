"""A differentiable mesh rasteriser in plain torch, for CPU and GPU, without a compiled extension.

Notation: B cameras of S x S pixels look at one mesh of V vertices and F faces; n counts covered pixels of all pictures,
numbered (camera * S + row) * S + column.

The ray of a pixel is d = (x, y, -1) in camera axes. For a vertex with depth z let q = (X - z x, Y - z y), its offset from the
ray. The point with barycentrics b lies on the ray if sum b_i q_i = 0, hence b_i is proportional to q_j x q_k: perspective-
correct, free of divisions until the end, and exactly antisymmetric on an edge that two triangles share, so that no pixel falls
between. Visibility: every triangle's pixel box is expanded into (triangle, pixel) candidates, and the nearest hit wins by one
scatter-min of (depth, face) packed into 64 bits.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.scene.cameras import Cameras, pixels_from_points_camera, points_camera_from_world

NEAREST_DEPTH = 1e-3
"""Faces with a vertex nearer to the camera's plane than this, in world units, are not drawn (there is no clipping)."""

CANDIDATES_PER_CHUNK = 1 << 21
"""Pairs of face and pixel tested at once, for the memory's sake; results do not depend on it."""
_NOTHING = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Fragments:
    """What each pixel sees.

    face_index: -1 where nothing. barycentric, depth: 0 where nothing, differentiable in the vertices.
    """

    face_index: Int[Tensor, "b h w"]
    barycentric: Float[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]

    @property
    def mask(self) -> Tensor:
        """(B, H, W) bool: True where a face is seen."""
        return self.face_index >= 0


def rasterize(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], cameras: Cameras, cull_backfaces: bool) -> Fragments:
    """The nearest face through every pixel's centre.

    Gradients reach `vertices` through barycentrics and depth, not through visibility.

    cull_backfaces: skip faces seen from behind (twice as fast; right for closed meshes only).
    """
    points_camera = points_camera_from_world(vertices, cameras)
    with torch.no_grad():
        face_index = _visible_faces(points_camera, faces, cameras, cull_backfaces)
    return fragments_from_faces(face_index, points_camera, faces, cameras)


def interpolate(
    fragments: Fragments, faces: Int[Tensor, "f 3"], vertex_attributes: Float[Tensor, "v c"]
) -> Float[Tensor, "b h w c"]:
    """Attributes of vertices at every pixel, 0 where nothing is seen.

    With the vertices themselves: the points seen, world frame.
    """
    covered = fragments.mask.reshape(-1).nonzero()[:, 0]
    values = interpolate_covered(fragments, faces, vertex_attributes)
    dense = values.new_zeros(fragments.face_index.numel(), values.shape[-1]).index_copy(0, covered, values)
    return dense.reshape(*fragments.face_index.shape, -1)


def interpolate_covered(
    fragments: Fragments, faces: Int[Tensor, "f 3"], vertex_attributes: Float[Tensor, "v c"]
) -> Float[Tensor, "n c"]:
    """As `interpolate`, for the covered pixels alone, in the order of `fragments.mask.nonzero()`."""
    covered = fragments.mask.reshape(-1).nonzero()[:, 0]
    corner = faces.index_select(0, fragments.face_index.reshape(-1).index_select(0, covered))
    weights = fragments.barycentric.reshape(-1, 3).index_select(0, covered)
    values = vertex_attributes.index_select(0, corner.reshape(-1)).reshape(len(corner), 3, -1)
    return (weights[:, :, None] * values).sum(1)


def faces_towards(points_camera: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b f"]:
    """Positive for faces that turn their front to the camera, negative for the others, 0 edge-on."""
    corner = points_camera.index_select(1, faces.reshape(-1)).reshape(len(points_camera), -1, 3, 3)
    origin = corner[:, :, 0]
    normal = torch.linalg.cross(corner[:, :, 1] - origin, corner[:, :, 2] - origin)
    return -(normal * origin).sum(-1)


def _offsets(corner: Tensor, ray_x: Tensor, ray_y: Tensor) -> tuple[Tensor, Tensor]:
    """q of the module docstring for corners (n, 3, 3) and rays (n,): two (n, 3) tensors."""
    return corner[..., 0] + corner[..., 2] * ray_x[:, None], corner[..., 1] + corner[..., 2] * ray_y[:, None]


def _edge_weights(corner: Tensor, ray_x: Tensor, ray_y: Tensor) -> Tensor:
    """Barycentrics up to a factor, (n, 3); all of one sign where the ray hits, positive for front faces."""
    across, upward = _offsets(corner, ray_x, ray_y)
    x0, x1, x2 = across.unbind(-1)
    y0, y1, y2 = upward.unbind(-1)
    return torch.stack([x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0], dim=-1)


def _rays(pixels: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """x and y of the rays through numbered pixels, (n,) each, at depth 1."""
    size = cameras.size
    half = torch.tan(torch.deg2rad(cameras.fov_deg) / 2).index_select(0, torch.div(pixels, size * size, rounding_mode="floor"))
    column, row = pixels % size, torch.div(pixels, size, rounding_mode="floor") % size
    return half * ((column + 0.5) * (2 / size) - 1), half * (1 - (row + 0.5) * (2 / size))


def fragments_from_faces(
    face_index: Int[Tensor, "b h w"], points_camera: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"], cameras: Cameras
) -> Fragments:
    """Differentiable barycentrics and depth where the visible faces are known, computed for covered pixels only."""
    flat = face_index.reshape(-1)
    covered = (flat >= 0).nonzero()[:, 0]
    n_vertices = points_camera.shape[1]
    picture = torch.div(covered, cameras.size**2, rounding_mode="floor")
    rows = faces.index_select(0, flat.index_select(0, covered)) + (picture * n_vertices)[:, None]
    corner = points_camera.reshape(-1, 3).index_select(0, rows.reshape(-1)).reshape(-1, 3, 3)
    weights = _edge_weights(corner, *_rays(covered, cameras))
    weights = weights / weights.sum(-1, keepdim=True)
    depth = -(weights * corner[..., 2]).sum(-1)
    shape = face_index.shape
    dense = weights.new_zeros(len(flat), 3).index_copy(0, covered, weights)
    return Fragments(
        face_index, dense.reshape(*shape, 3), depth.new_zeros(len(flat)).index_copy(0, covered, depth).reshape(shape)
    )


def _visible_faces(points_camera: Tensor, faces: Tensor, cameras: Cameras, cull_backfaces: bool) -> Tensor:
    """The visible face of every pixel (B, S, S), -1 where none."""
    size = cameras.size
    camera, face, boxes = _drawn_faces(points_camera, faces, cameras, cull_backfaces)
    nearest = torch.full((len(cameras) * size * size,), _NOTHING, dtype=torch.int64, device=faces.device)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rows = faces.index_select(0, face) + (camera * points_camera.shape[1])[:, None]
    corner = points_camera.reshape(-1, 3).index_select(0, rows.reshape(-1)).reshape(-1, 3, 3)
    chunk = torch.div(area.cumsum(0), CANDIDATES_PER_CHUNK, rounding_mode="floor")
    for part in torch.split(torch.arange(len(face), device=faces.device), torch.bincount(chunk).tolist() if len(chunk) else []):
        if len(part):
            _draw(
                nearest=nearest, camera=camera[part], face=face[part], boxes=boxes[part], corner=corner[part], cameras=cameras
            )
    ids = nearest & 0xFFFFFFFF
    return torch.where(nearest == _NOTHING, -1, ids).reshape(len(cameras), size, size)


def _drawn_faces(points_camera: Tensor, faces: Tensor, cameras: Cameras, cull_backfaces: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Camera (m,), face (m,) and pixel box (m, 4) of all faces that may cover a pixel centre.

    A box is left, top, right, bottom; the ends are exclusive.
    """
    pixels = pixels_from_points_camera(points_camera, cameras)
    n_cameras, n_faces, size = len(cameras), len(faces), cameras.size
    corner = pixels.index_select(1, faces.reshape(-1)).reshape(n_cameras, n_faces, 3, 2)
    # A slack of 1/100 pixel: rounding in the projection must not cut a centre that the edge test would accept.
    low = (corner.amin(2) - 0.51).ceil().clamp(0, size)
    high = (corner.amax(2) - 0.49).floor().clamp(-1, size - 1) + 1
    in_front = (
        (points_camera[..., 2] < -NEAREST_DEPTH).index_select(1, faces.reshape(-1)).reshape(n_cameras, n_faces, 3).all(-1)
    )
    drawn = in_front & (high > low).all(-1)
    if cull_backfaces:
        drawn &= faces_towards(points_camera, faces) > 0
    camera, face = drawn.nonzero(as_tuple=True)
    return camera, face, torch.cat([low, high], dim=-1)[camera, face].long()


def _draw(nearest: Tensor, camera: Tensor, face: Tensor, boxes: Tensor, corner: Tensor, cameras: Cameras) -> None:
    """Expand boxes into candidates and lower `nearest` (depth bits << 32 | face) where they hit."""
    size = cameras.size
    width = boxes[:, 2] - boxes[:, 0]
    area = width * (boxes[:, 3] - boxes[:, 1])
    owner = torch.repeat_interleave(torch.arange(len(face), device=face.device), area)
    place = torch.arange(len(owner), device=face.device) - (area.cumsum(0) - area).index_select(0, owner)
    row_in_box = torch.div(place, width.index_select(0, owner), rounding_mode="floor")
    first = (camera * size + boxes[:, 1]) * size + boxes[:, 0]
    # place = row_in_box * width + column_in_box, so the pixel's number needs only the rows' surplus.
    pixels = first.index_select(0, owner) + place + row_in_box * (size - width).index_select(0, owner)
    candidate = corner.index_select(0, owner)
    weights = _edge_weights(candidate, *_rays(pixels, cameras))
    total = weights.sum(-1)
    hit = (((weights >= 0).all(-1) | (weights <= 0).all(-1)) & (total != 0)).nonzero()[:, 0]
    weights, total = weights.index_select(0, hit), total.index_select(0, hit)
    depth = -(weights * candidate.index_select(0, hit)[..., 2]).sum(-1) / total
    # Positive floats order as their bits do.
    packed = (depth.float().view(torch.int32).long() << 32) | face.index_select(0, owner.index_select(0, hit))
    nearest.scatter_reduce_(0, pixels.index_select(0, hit), packed, reduce="amin")
