"""A read mesh as one surface: places joined that the file keeps apart, and the colours on it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.assets.textured_mesh import TexturedMesh, linear_from_srgb, srgb_from_linear, texels_bilinear, wrapped


def welded(mesh: TexturedMesh) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "f 3"]]:
    """Vertices, each place once, and the same faces in the same order."""
    places, number = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    return places, number[mesh.faces]


def colors_at(mesh: TexturedMesh, faces: Int[Tensor, " n"], barycentric: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """The mesh's own sRGB colours at places on its faces."""
    corner = mesh.faces[faces]
    uv = (barycentric[..., None] * mesh.uv[corner]).sum(1)
    colors = torch.zeros(len(faces), 3, device=uv.device)
    for number, texture in enumerate(mesh.textures):
        rows = (mesh.face_texture[faces] == number).nonzero()[:, 0]
        if len(rows):
            colors[rows] = texels_bilinear(texture, wrapped(uv[rows], mesh.wraps[number], texture.shape))
    if mesh.vertex_colors is None:
        return colors
    factor = (barycentric[..., None] * mesh.vertex_colors[corner]).sum(1)
    return srgb_from_linear(linear_from_srgb(colors) * factor)


def sampled_colors(
    mesh: TexturedMesh, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Places, evenly over the surface, and the mesh's own sRGB colours there."""
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    # torch.multinomial takes at most 2^24 categories; the running sum takes any number.
    sums = area.double().cumsum(0)
    drawn = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64) * sums[-1]
    face = torch.searchsorted(sums, drawn).clamp(max=len(area) - 1)
    shares = torch.rand(count, 2, generator=generator, device=generator.device)
    root = shares[:, :1].sqrt()
    barycentric = torch.cat([1 - root, root * (1 - shares[:, 1:]), root * shares[:, 1:]], dim=-1)
    return (barycentric[..., None] * corners[face]).sum(1), colors_at(mesh, face, barycentric)


def is_one_colour(mesh: TexturedMesh) -> bool:
    """Whether the mesh comes without a picture and without vertex colours that differ: nothing of it is worth keeping."""
    if mesh.vertex_colors is not None and bool((mesh.vertex_colors.amax(0) - mesh.vertex_colors.amin(0)).max() > 1e-3):
        return False
    used = [mesh.textures[number].reshape(-1, 3) for number in mesh.face_texture.unique().tolist()]
    colors = torch.stack([torch.stack([texture.amin(0), texture.amax(0)]) for texture in used])
    return bool((colors[:, 1].amax(0) - colors[:, 0].amin(0)).max() <= 1e-3)
