"""A mesh file as one textured mesh: read, turned into the world frame, centred in float64, and told what was assumed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dreampolish.assets.reading.gltf.scene_of_gltf import read_gltf
from dreampolish.assets.reading.obj.scene_of_obj import read_obj
from dreampolish.assets.reading.plain import read_plain
from dreampolish.assets.reading.scene import MeshError, Part, Scene
from dreampolish.assets.reading.source import MeshFiles, open_mesh_file
from dreampolish.assets.textured_mesh import TexturedMesh, linear_from_srgb, srgb_from_linear
from dreampolish.mesh.topology import vertex_normals

FAR_SHARE = 0.01
"""Of the surface, at most, that may lie far from the rest and is then told. [choice]"""
FAR_FACTOR = 2.0
"""How much larger that makes the object's box, at least. [choice]"""

WORLD_FROM_UP = {
    "y": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "z": np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "x": np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
}
"""Rotations from a file's axes to ours, by the axis that is up there. The front is +z where y is up and -y where z is (Blender)."""
ASSUMED_UP = {"stl": "z", "ply": "z"}
"""Of formats that do not say which way is up; y for all others."""


@dataclass(frozen=True)
class ReadMesh:
    """A file's mesh in the world frame. vertices: float64, in the file's unit. mesh: the rest; its own vertices lie in the unit sphere.

    center: of the box, radius: of the sphere around it that holds all that is drawn, both in the file's unit, world frame.
    """

    mesh: TexturedMesh
    vertices: Float[np.ndarray, "v 3"]
    center: Float[np.ndarray, "3"]
    radius: float
    notes: tuple[str, ...]

    def normalized(self, radius: float) -> TexturedMesh:
        """The object around the origin, its farthest vertex `radius` away."""
        return replace(self.mesh, vertices=self.mesh.vertices * radius)

    def in_file_frame(self) -> TexturedMesh:
        """The object where and as large as it is in the file."""
        return replace(self.mesh, vertices=torch.tensor(self.vertices, dtype=torch.float32))


def read_scene(files: MeshFiles) -> Scene:
    """The parts of a mesh file of any format. Raises MeshError in one line."""
    match files.kind:
        case "glb" | "gltf":
            return read_gltf(files)
        case "obj":
            return read_obj(files)
        case "ply" | "stl" | "off":
            return read_plain(files)
    from dreampolish.assets.reading.usd import read_usd  # takes a second to import, and only here is it wanted

    return read_usd(files)


def read_mesh(path: Path) -> ReadMesh:
    """A mesh file from disk. Raises MeshError, in one line, for one that cannot be read as it is."""
    files = open_mesh_file(path)
    scene = read_scene(files)
    return joined(scene, assumed_up(scene, files), files.name)


def assumed_up(scene: Scene, files: MeshFiles) -> str:
    """The file's axis that points up: as it says, else as its format is mostly written."""
    return scene.up or ASSUMED_UP.get(files.kind, "y")


def world_from_file(up: str, front_deg: float) -> Float[np.ndarray, "3 3"]:
    """The rotation from a file's axes to ours; see `joined`."""
    if front_deg == 0:
        return WORLD_FROM_UP[up]
    angle = np.radians(front_deg)
    turned = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found: np.ndarray = turned @ WORLD_FROM_UP[up]
    return found


def joined(scene: Scene, up: str, name: str, front_deg: float = 0.0) -> ReadMesh:
    """All parts as one mesh. up: the axis of the file that points up. front_deg: azimuth of the front there, which is turned to 0.

    Raises MeshError for an object without extent.
    """
    axes = world_from_file(up, front_deg)
    pieces = [_piece(part, axes) for part in scene.parts]
    first = np.cumsum([0] + [len(part.positions) for part in scene.parts]).tolist()
    vertices = np.concatenate([places for places, _ in pieces])
    faces = torch.cat([piece.faces + first[number] for number, (_, piece) in enumerate(pieces)])
    center, radius = _box_sphere(vertices, faces.numpy(), name)
    small = torch.tensor((vertices - center) / radius, dtype=torch.float32)
    colors = [piece.vertex_colors for _, piece in pieces]
    mesh = TexturedMesh(
        vertices=small,
        normals=torch.cat(
            [
                _normals(piece, small[start : start + len(piece.vertices)])
                for start, (_, piece) in zip(first[:-1], pieces, strict=True)
            ]
        ),
        uv=torch.cat([piece.uv for _, piece in pieces]),
        faces=faces,
        textures=tuple(piece.textures[0] for _, piece in pieces),
        face_texture=torch.cat([piece.face_texture + number for number, (_, piece) in enumerate(pieces)]),
        wraps=tuple(piece.wraps[0] for _, piece in pieces),
        vertex_colors=None
        if all(each is None for each in colors)
        else torch.cat([torch.ones(len(p.vertices), 3) if c is None else c for c, (_, p) in zip(colors, pieces, strict=True)]),
    )
    notes = (*scene.notes, *_far_notes(vertices, faces.numpy()))
    return ReadMesh(mesh=mesh, vertices=vertices, center=center, radius=radius, notes=tuple(dict.fromkeys(notes)))


def _piece(part: Part, axes: np.ndarray) -> tuple[np.ndarray, TexturedMesh]:
    """A part's places in the world frame, float64, and its mesh; normals of length 0 where the file has none."""
    turn = axes.T
    count = len(part.positions)
    normals = np.zeros((count, 3)) if part.normals is None else part.normals @ turn
    texture = painted_texture(part)
    return part.positions @ turn, TexturedMesh(
        vertices=torch.zeros(count, 3),
        normals=torch.tensor(normals, dtype=torch.float32),
        uv=torch.zeros(count, 2) if part.uv is None else torch.tensor(part.uv, dtype=torch.float32),
        faces=torch.tensor(part.faces.copy(), dtype=torch.int64),
        textures=(texture,),
        face_texture=torch.zeros(len(part.faces), dtype=torch.int64),
        wraps=(part.look.wrap,),
        vertex_colors=None if part.colors is None else torch.tensor(part.colors, dtype=torch.float32).clamp(0, 1),
    )


def painted_texture(part: Part) -> Float[torch.Tensor, "h w 3"]:
    """A part's texture times its factor as one sRGB picture; a single texel without texture."""
    factor = torch.tensor(part.look.color, dtype=torch.float32).clamp(0, 1)
    if part.look.texture is None:
        return srgb_from_linear(factor).reshape(1, 1, 3)
    texels = torch.from_numpy(part.look.texture)
    return texels if bool((factor == 1).all()) else srgb_from_linear(linear_from_srgb(texels) * factor)


def _normals(piece: TexturedMesh, vertices: torch.Tensor) -> torch.Tensor:
    """The file's normals, or smooth ones where it has none."""
    given = piece.normals
    if bool((given.norm(dim=-1) > 0.5).any()):
        return given
    return vertex_normals(vertices, piece.faces)


def _box_sphere(vertices: np.ndarray, faces: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    used = vertices[np.unique(faces)]
    low, high = used.min(axis=0), used.max(axis=0)
    center = low / 2 + high / 2
    offset = used - center
    largest = float(np.abs(offset).max())
    if not np.isfinite(largest) or largest <= 0:
        raise MeshError(f"{name} has no extent: all its vertices lie at one place")
    return center, largest * float(np.linalg.norm(offset / largest, axis=1).max())


def _far_notes(vertices: np.ndarray, faces: np.ndarray) -> list[str]:
    """Whether a small share of the surface lies so far off that it makes the rest small."""
    places, welded = np.unique(vertices, axis=0, return_inverse=True)
    corners = welded.reshape(-1)[faces]
    count = len(places)
    ones = np.ones(2 * len(corners))
    links = coo_array((ones, (corners[:, [0, 1]].reshape(-1), corners[:, [1, 2]].reshape(-1))), (count, count))
    label = connected_components(links, directed=False)[1][corners[:, 0]]
    scale = max(float(np.ptp(vertices[faces.reshape(-1)], axis=0).max()), 1e-300)
    triangles = (vertices[faces] - vertices[faces[0, 0]]) / scale
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    by_part = np.bincount(label, weights=area)
    order = np.argsort(by_part)
    small = order[np.cumsum(by_part[order]) <= FAR_SHARE * by_part.sum()]
    far = np.isin(label, small)
    if not far.any() or far.all():
        return []
    whole, rest = np.ptp(triangles.reshape(-1, 3), axis=0).max(), np.ptp(triangles[~far].reshape(-1, 3), axis=0).max()
    if whole < FAR_FACTOR * rest:
        return []
    share = by_part[small].sum() / by_part.sum()
    return [
        f"{int(far.sum()):,} triangles, {share:.2%} of the surface, lie far from the rest and make the object {whole / rest:.1f} times "
        "smaller; remove them from the file if they are not meant"
    ]
