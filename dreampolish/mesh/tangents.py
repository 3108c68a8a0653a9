"""Tangents for normal mapping, from texture coordinates."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def tangents_from_uv(
    vertices: Float[Tensor, "v 3"], normals: Float[Tensor, "v 3"], uv: Float[Tensor, "v 2"], faces: Int[Tensor, "f 3"]
) -> Float[Tensor, "v 4"]:
    """Unit tangents along growing u, orthogonal to the normals, and the sign w of glTF: bitangent = w * cross(normal, tangent).

    The bitangent points up in the texture, against glTF's v (glTF 2.0, 3.7.2.1). Where texture coordinates span no area any
    direction orthogonal to the normal is given. Averaged over a vertex's faces by area.
    """
    corner, place = vertices[faces], uv[faces]
    edge_1, edge_2 = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    step_1, step_2 = place[:, 1] - place[:, 0], place[:, 2] - place[:, 0]
    determinant = (step_1[:, 0] * step_2[:, 1] - step_2[:, 0] * step_1[:, 1])[:, None]
    along_u = (edge_1 * step_2[:, 1:] - edge_2 * step_1[:, 1:]) * determinant.sign()
    along_v = (edge_2 * step_1[:, :1] - edge_1 * step_2[:, :1]) * determinant.sign()
    summed_u, summed_v = torch.zeros_like(vertices), torch.zeros_like(vertices)
    for k in range(3):
        summed_u = summed_u.index_add(0, faces[:, k], along_u)
        summed_v = summed_v.index_add(0, faces[:, k], along_v)
    tangent = summed_u - (summed_u * normals).sum(-1, keepdim=True) * normals
    length = tangent.norm(dim=-1, keepdim=True)
    tangent = torch.where(length > 1e-6 * summed_u.norm(dim=-1, keepdim=True) + 1e-20, tangent, _any_orthogonal(normals))
    tangent = tangent / tangent.norm(dim=-1, keepdim=True)
    upward = (torch.linalg.cross(normals, tangent) * -summed_v).sum(-1, keepdim=True)
    return torch.cat([tangent, torch.where(upward < 0, -1.0, 1.0)], dim=-1)


def _any_orthogonal(normals: Tensor) -> Tensor:
    """A vector orthogonal to each normal, never zero."""
    helper = torch.zeros_like(normals).scatter_(1, normals.abs().argmin(-1, keepdim=True), 1.0)
    return torch.linalg.cross(normals, helper)
