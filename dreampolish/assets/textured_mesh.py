"""A mesh with texture coordinates and pictures for its colours."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.mesh.topology import face_adjacency
from dreampolish.renderers.mesh import MeshRender, shaded
from dreampolish.renderers.rasterizer import Fragments, interpolate_covered, rasterize
from dreampolish.scene.cameras import Cameras


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh in the world frame whose vertices are split at texture seams.

    normals: unit, outward. uv: glTF's, (0, 0) is the texture's upper left corner, repeated outside [0, 1].
    textures: one picture (h, w, 3) in [0, 1], display-referred sRGB, per material. face_texture: (F,), each face's picture.
    wraps: how each picture goes on beyond [0, 1] along u and v: repeat, clamp or mirror; empty: all repeat. vertex_colors: linear RGB
    that multiplies the pictures; None: 1.
    """

    vertices: Float[Tensor, "v 3"]
    normals: Float[Tensor, "v 3"]
    uv: Float[Tensor, "v 2"]
    faces: Int[Tensor, "f 3"]
    textures: tuple[Tensor, ...]
    face_texture: Int[Tensor, " f"]
    wraps: tuple[tuple[str, str], ...] = ()
    vertex_colors: Float[Tensor, "v 3"] | None = None

    @cached_property
    def adjacency(self) -> Int[Tensor, "f 3"]:
        """Faces' neighbours on the surface: a seam of the texture, where vertices are split, is no edge of it.

        Where more than two faces meet at a place, as on double sheets, the vertices' own word counts.
        """
        place = torch.unique(self.vertices.detach(), dim=0, return_inverse=True)[1]
        welded = face_adjacency(place[self.faces])
        return torch.where(welded >= 0, welded, face_adjacency(self.faces))

    def color_of(self, fragments: Fragments) -> Float[Tensor, "n 3"]:
        """Colours on the covered pixels of this mesh's fragments, in the order of `fragments.mask.nonzero()`."""
        uv = interpolate_covered(fragments, self.faces, self.uv)
        seen = fragments.face_index[fragments.mask]
        texture_of_pixel = self.face_texture.index_select(0, seen)
        colors = uv.new_zeros(len(uv), 3)
        for number, texture in enumerate(self.textures):
            rows = (texture_of_pixel == number).nonzero()[:, 0]
            places = wrapped(uv.index_select(0, rows), self.wraps[number] if self.wraps else REPEATED, texture.shape)
            colors = colors.index_copy(0, rows, texels_bilinear(texture, places))
        if self.vertex_colors is None:
            return colors
        factor = interpolate_covered(fragments, self.faces, self.vertex_colors)
        return srgb_from_linear(linear_from_srgb(colors) * factor)

    def to(self, device: torch.device | str) -> "TexturedMesh":
        """The same mesh on another device."""
        return TexturedMesh(
            vertices=self.vertices.to(device),
            normals=self.normals.to(device),
            uv=self.uv.to(device),
            faces=self.faces.to(device),
            textures=tuple(texture.to(device) for texture in self.textures),
            face_texture=self.face_texture.to(device),
            wraps=self.wraps,
            vertex_colors=None if self.vertex_colors is None else self.vertex_colors.to(device),
        )


REPEATED = ("repeat", "repeat")


def wrapped(uv: Float[Tensor, "n 2"], wrap: tuple[str, str], shape: torch.Size) -> Float[Tensor, "n 2"]:
    """Coordinates at which a repeating look-up reads what a clamped or mirrored one would. shape: of the texture, (h, w, 3)."""
    if wrap == REPEATED:
        return uv
    columns = []
    for axis, (mode, size) in enumerate(zip(wrap, (shape[1], shape[0]), strict=True)):
        along, half = uv[:, axis], 0.5 / size
        if mode == "mirror":
            along = 1 - (along.remainder(2) - 1).abs()
        columns.append(along if mode == "repeat" else along.clamp(half, 1 - half))
    return torch.stack(columns, dim=-1)


def texels_bilinear(texture: Float[Tensor, "h w c"], uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n c"]:
    """Bilinear look-up between texel centres, repeating at the borders; differentiable in both arguments."""
    height, width, channels = texture.shape
    column, row = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    left, top = column.detach().floor(), row.detach().floor()
    across, down = (column - left)[:, None], (row - top)[:, None]
    flat = texture.reshape(-1, channels)

    def at(x: Tensor, y: Tensor) -> Tensor:
        return flat.index_select(0, (y.long() % height) * width + x.long() % width)

    upper = at(left, top) * (1 - across) + at(left + 1, top) * across
    lower = at(left, top + 1) * (1 - across) + at(left + 1, top + 1) * across
    return upper * (1 - down) + lower * down


def render_textured_mesh(mesh: TexturedMesh, cameras: Cameras, supersample: int, cull_backfaces: bool) -> MeshRender:
    """Unlit: texture colours as they are, on white. Normals are the mesh's own, turned to the viewer on faces seen from behind.

    supersample: samples along a pixel's side; textures have no mip levels, so 2 or more is wise. cull_backfaces: for closed meshes
    with outward faces only; foreign files may be neither.
    """
    fine = cameras.at_size(cameras.size * supersample)
    fragments = rasterize(mesh.vertices, mesh.faces, fine, cull_backfaces)
    return shaded(
        fragments=fragments,
        vertices=mesh.vertices,
        faces=mesh.faces,
        normals_of_vertices=mesh.normals,
        cameras=fine,
        color_of=lambda points, normals: mesh.color_of(fragments),
        supersample=supersample,
        adjacency=mesh.adjacency,
    )


def srgb_from_linear(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sRGB transfer curve (IEC 61966-2-1), [0, 1] to [0, 1]."""
    return torch.where(values <= 0.0031308, values * 12.92, 1.055 * values.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def linear_from_srgb(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of `srgb_from_linear`."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
