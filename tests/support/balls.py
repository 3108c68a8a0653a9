"""Balls: textured meshes whose measures are known in closed form."""

import torch
import trimesh

from dreampolish.assets.textured_mesh import TexturedMesh


def ball(radius: float) -> TexturedMesh:
    """A grey ball around the origin."""
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    vertices, faces = torch.tensor(sphere.vertices).float(), torch.tensor(sphere.faces)
    texture = torch.full((2, 2, 3), 0.5)
    return TexturedMesh(
        vertices=vertices,
        normals=vertices / radius,
        uv=torch.zeros(len(vertices), 2),
        faces=faces,
        textures=(texture,),
        face_texture=torch.zeros(len(faces), dtype=torch.int64),
    )
