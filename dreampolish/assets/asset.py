"""What is written to a file: a textured mesh at its size, its maps and what the file says of itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.assets.textured_mesh import TexturedMesh, texels_bilinear

GLTF_FROM_WORLD = [1, 2, 0]
"""gltf = (world y, world z, world x): +Y up, +Z front. A cyclic exchange of axes, so that no face turns over."""
WORLD_FROM_GLTF = [2, 0, 1]


@dataclass(frozen=True)
class Asset:
    """A mesh in the world frame, in metres, and its material.

    normal_map: tangent-space, (n + 1) / 2, green up. roughness, metallic: 0..1. source: each vertex's number in the mesh before it was
    cut at texture seams. extras: JSON values.
    """

    mesh: TexturedMesh
    source: Int[Tensor, " v"]
    normal_map: Float[Tensor, "h w 3"] | None
    roughness: float
    metallic: float
    name: str
    extras: dict[str, Any]

    def seamless(self) -> "Seamless":
        """The same surface without the cuts, colours taken from the textures at the vertices."""
        mesh = self.mesh
        first = torch.full((int(self.source.max()) + 1,), len(self.source), device=self.source.device)
        numbers = torch.arange(len(self.source), device=self.source.device)
        first = first.scatter_reduce(0, self.source, numbers, reduce="amin")
        used, renumbered = torch.unique(self.source[mesh.faces], return_inverse=True)
        corner = first[used]
        colors = torch.zeros(len(mesh.vertices), 3, device=mesh.vertices.device)
        for number, texture in enumerate(mesh.textures):
            rows = mesh.faces[mesh.face_texture == number].unique()
            colors[rows] = texels_bilinear(texture, mesh.uv[rows])
        return Seamless(mesh.vertices[corner], mesh.normals[corner], colors[corner], renumbered)


@dataclass(frozen=True)
class Seamless:
    """A mesh with a normal and an sRGB colour in [0, 1] at every vertex; closed where the surface is."""

    vertices: Float[Tensor, "v 3"]
    normals: Float[Tensor, "v 3"]
    colors: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]


def pixels_of(texture: Float[Tensor, "h w 3"]) -> np.ndarray:
    """A picture in [0, 1] as bytes (H, W, 3)."""
    return (texture.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def checked(mesh: TexturedMesh) -> None:
    """Raise ValueError for a mesh that no file should hold: one without faces, or with a coordinate that is not finite."""
    if len(mesh.faces) == 0 or not bool(torch.isfinite(mesh.vertices).all()):
        raise ValueError("a 3D file needs at least one face and finite coordinates")


PLAIN_ROUGHNESS, PLAIN_METALLIC = 0.9, 0.0
"""Material of a mesh that comes with colours alone, as ExportConfig's defaults. [choice]"""


def plain_asset(mesh: TexturedMesh, name: str, extras: dict[str, Any]) -> Asset:
    """A mesh with its base colours alone, rough and not metallic, as it is."""
    return Asset(
        mesh=mesh,
        source=torch.arange(len(mesh.vertices), device=mesh.vertices.device),
        normal_map=None,
        roughness=PLAIN_ROUGHNESS,
        metallic=PLAIN_METALLIC,
        name=name,
        extras=extras,
    )
