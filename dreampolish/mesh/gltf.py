"""Reading binary glTF 2.0 (GLB).

World (z up, +x front) and glTF (+Y up, +Z front) differ by a cyclic exchange of axes: gltf = (world y, world z, world x).
Base colours are display-referred sRGB here as in the file; factors and vertex colours of foreign files are linear (glTF 2.0, 3.9.2).
"""

import io
import struct
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.mesh.asset import WORLD_FROM_GLTF
from dreampolish.mesh.textured import TexturedMesh
from dreampolish.mesh.topology import vertex_normals

MAX_TEXTURE_SIDE = 4096
# What trimesh raises on broken files, seen by feeding it damaged ones.
_UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    struct.error,
    Image.DecompressionBombError,
)


def read_glb(path: Path) -> TexturedMesh:
    """A GLB's triangles with their base colours, in the world frame at the file's scale; opacity and other maps are ignored.

    Raises ValueError with the reason if the file cannot be read, holds no triangles, or a texture exceeds 4096 pixels a side.
    """
    try:
        scene = trimesh.load_scene(io.BytesIO(path.read_bytes()), file_type="glb", process=False)
    except _UNREADABLE as error:
        raise ValueError(f"{path.name} is not a readable GLB: {error}") from error
    nodes = [scene.graph[name] for name in scene.graph.nodes_geometry]
    placed = [(transform, scene.geometry[name]) for transform, name in nodes]
    placed = [(transform, part) for transform, part in placed if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not placed:
        raise ValueError(f"{path.name} holds no triangles")
    pieces = [_piece(part, transform, path.name) for transform, part in placed]
    first = np.cumsum([0] + [len(piece.vertices) for piece in pieces]).tolist()
    return TexturedMesh(
        vertices=torch.cat([piece.vertices for piece in pieces]),
        normals=torch.cat([piece.normals for piece in pieces]),
        uv=torch.cat([piece.uv for piece in pieces]),
        faces=torch.cat([piece.faces + first[number] for number, piece in enumerate(pieces)]),
        textures=tuple(piece.textures[0] for piece in pieces),
        face_texture=torch.cat([piece.face_texture + number for number, piece in enumerate(pieces)]),
    )


def _piece(part: trimesh.Trimesh, transform: np.ndarray, name: str) -> TexturedMesh:
    """One primitive, moved by its node's transform and turned into the world frame."""
    linear = transform[:3, :3]
    places = part.vertices @ linear.T + transform[:3, 3]
    vertices = torch.tensor(places[:, WORLD_FROM_GLTF], dtype=torch.float32)
    mirrored = np.linalg.det(linear) < 0
    faces = torch.tensor(part.faces[:, ::-1].copy() if mirrored else part.faces, dtype=torch.int64)
    # trimesh puts a file's normals into the mesh's cache and computes them only when asked: this tells the two apart.
    if "vertex_normals" in part._cache:
        turned = part.vertex_normals @ np.linalg.inv(linear)
        normals = torch.nn.functional.normalize(torch.tensor(turned[:, WORLD_FROM_GLTF], dtype=torch.float32), dim=-1)
    else:
        normals = vertex_normals(vertices, faces)
    texture = _texture_of_part(part, name)
    return TexturedMesh(vertices, normals, _uv_of_part(part), faces, (texture,), torch.zeros(len(faces), dtype=torch.int64))


def _uv_of_part(part: trimesh.Trimesh) -> Tensor:
    """glTF's texture coordinates; trimesh keeps them with v upward."""
    uv = getattr(part.visual, "uv", None)
    if uv is None:
        return torch.zeros(len(part.vertices), 2)
    flipped = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=-1)
    return torch.tensor(flipped, dtype=torch.float32)


def _texture_of_part(part: trimesh.Trimesh, name: str) -> Tensor:
    """Base colour texture times factor as one sRGB picture; a single texel without texture, white without a material."""
    material = getattr(part.visual, "material", None)
    if not isinstance(material, trimesh.visual.material.PBRMaterial):
        return torch.ones(1, 1, 3)
    given = material.baseColorFactor
    factor = torch.ones(3) if given is None else torch.tensor(np.asarray(given)[:3] / 255.0, dtype=torch.float32)
    picture = material.baseColorTexture
    if picture is None:
        return srgb_from_linear(factor).reshape(1, 1, 3)
    if max(picture.size) > MAX_TEXTURE_SIDE:
        raise ValueError(f"{name} has a texture of {picture.size} pixels; at most {MAX_TEXTURE_SIDE} a side are read")
    texels = torch.tensor(np.asarray(picture.convert("RGB")), dtype=torch.float32) / 255
    return texels if given is None or bool((factor == 1).all()) else srgb_from_linear(linear_from_srgb(texels) * factor)


def srgb_from_linear(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The sRGB transfer curve (IEC 61966-2-1), [0, 1] to [0, 1]."""
    return torch.where(values <= 0.0031308, values * 12.92, 1.055 * values.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def linear_from_srgb(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of `srgb_from_linear`."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
