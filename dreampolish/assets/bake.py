"""From a colour function on a surface to a texture.

Texels are found by the mesh rasteriser: the atlas, laid into the plane at depth 1 of a camera with a field of view of 90 degrees,
covers exactly that camera's picture, and perspective-correct barycentrics become the atlas's own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from dreampolish.assets.unwrap import Unwrapped
from dreampolish.renderers.mesh import ColorOf
from dreampolish.renderers.rasterizer import Fragments, rasterize
from dreampolish.scene.cameras import Cameras

TEXELS_PER_CALL = 1 << 16
"""Texels evaluated at once, for the memory's sake; results do not depend on it."""


@dataclass(frozen=True)
class Texels:
    """The surface under the n texels that have one: their row and column, the face and the barycentrics there; the texture's side."""

    row: Int[Tensor, " n"]
    column: Int[Tensor, " n"]
    face: Int[Tensor, " n"]
    barycentric: Float[Tensor, "n 3"]
    size: int

    def interpolate(self, faces: Int[Tensor, "f 3"], vertex_attributes: Float[Tensor, "v c"]) -> Float[Tensor, "n c"]:
        """Attributes of the unwrapped mesh's vertices at every texel."""
        corner = faces.index_select(0, self.face)
        values = vertex_attributes.index_select(0, corner.reshape(-1)).reshape(len(corner), 3, -1)
        return (self.barycentric[:, :, None] * values).sum(1)


def texels_of(mesh: Unwrapped, size: int, dilation: int) -> Texels:
    """Surface places of all texels whose centre lies in a chart, and of those up to `dilation` pixels beside one.

    The latter take the nearest covered texel's place, so that filtering across a chart's border sees a colour of the surface.
    size: a power of two, 16 or more; ValueError otherwise, or if no texel is covered.
    """
    if size < 16 or size & (size - 1):
        raise ValueError(f"texture size is {size}: it must be a power of two, 16 or more")
    atlas = _atlas(mesh, size)
    if not bool(atlas.mask.any()):
        raise ValueError("no texel is covered: the texture coordinates span no area, or the texture is too small")
    row, column, nearest_row, nearest_column = _dilated(atlas.mask[0], dilation)
    return Texels(
        row=row,
        column=column,
        face=atlas.face_index[0, nearest_row, nearest_column],
        barycentric=atlas.barycentric[0, nearest_row, nearest_column],
        size=size,
    )


def faces_of_texels(mesh: Unwrapped, size: int) -> Int[Tensor, "size size"]:
    """The face under each texel's centre, -1 where none."""
    return _atlas(mesh, size).face_index[0]


def _atlas(mesh: Unwrapped, size: int) -> Fragments:
    plane = torch.stack([2 * mesh.uv[:, 0] - 1, 1 - 2 * mesh.uv[:, 1], -torch.ones_like(mesh.uv[:, 0])], dim=-1)
    zero = plane.new_zeros(1)
    camera = Cameras(
        world_from_camera=torch.eye(4, device=plane.device, dtype=plane.dtype)[None],
        fov_deg=zero + 90,
        azimuth_deg=zero,
        elevation_deg=zero,
        size=size,
    )
    return rasterize(plane, mesh.faces, camera, cull_backfaces=False)


def _dilated(covered: Tensor, dilation: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row and column of texels within `dilation` pixels of a covered one, and row and column of the nearest covered one."""
    distance, nearest = distance_transform_edt(~covered.cpu().numpy(), return_indices=True)
    row, column = np.nonzero(distance <= dilation)
    places = (row, column, nearest[0][row, column], nearest[1][row, column])
    first, second, third, fourth = (torch.from_numpy(place.astype(np.int64)).to(covered.device) for place in places)
    return first, second, third, fourth


def bake(color_of: ColorOf, mesh: Unwrapped, texels: Texels) -> Float[Tensor, "s s 3"]:
    """The texture of `color_of`, clamped to [0, 1]; texels without a surface get the mean colour. No gradient."""
    with torch.no_grad():
        colors = _evaluated(color_of, mesh, texels).clamp(0, 1)
        texture = colors.mean(0).expand(texels.size, texels.size, 3).clone()
        texture[texels.row, texels.column] = colors
    return texture


def bake_normal_map(
    normal_of: ColorOf, mesh: Unwrapped, texels: Texels, tangents: Float[Tensor, "n 4"]
) -> Float[Tensor, "s s 3"]:
    """A tangent-space normal map, (n + 1) / 2, of a finer surface's normals; flat (0.5, 0.5, 1) where there is no surface.

    normal_of: the finer surface's unit normals, world frame, from points and normals of `mesh`. tangents: `tangents.tangents_from_uv`.
    """
    with torch.no_grad():
        fine = _evaluated(normal_of, mesh, texels)
        normal, tangent = texels.interpolate(mesh.faces, mesh.normals), texels.interpolate(mesh.faces, tangents)
        normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        along = tangent[:, :3] - (tangent[:, :3] * normal).sum(-1, keepdim=True) * normal
        along = along / along.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        bitangent = torch.linalg.cross(normal, along) * tangent[:, 3:].sign()
        local = torch.stack([(fine * axis).sum(-1) for axis in (along, bitangent, normal)], dim=-1)
        local = local / local.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        texture = torch.tensor([0.5, 0.5, 1.0], device=fine.device).expand(texels.size, texels.size, 3).clone()
        texture[texels.row, texels.column] = (local + 1) / 2
    return texture


def _evaluated(function: ColorOf, mesh: Unwrapped, texels: Texels) -> Tensor:
    """The function at every texel, a bounded number at a time."""
    points = texels.interpolate(mesh.faces, mesh.vertices)
    normals = texels.interpolate(mesh.faces, mesh.normals)
    normals = normals / normals.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    chunks = zip(points.split(TEXELS_PER_CALL), normals.split(TEXELS_PER_CALL), strict=True)
    return torch.cat([function(*chunk) for chunk in chunks])
