"""From a read mesh and new colours to its file with these colours: layouts, pictures, and everything else as it was."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.assets.asset import pixels_of
from dreampolish.assets.bake import Texels, texels_of
from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.read import world_from_file
from dreampolish.assets.reading.repainting.gltf_back import Paint, gltf_of_scene, repainted_glb
from dreampolish.assets.reading.repainting.layout import Layout, Wanted, chosen_parts, face_starts, layouts
from dreampolish.assets.reading.repainting.moving import Moved, move_in_document, moved_scene
from dreampolish.assets.reading.repainting.obj_back import repainted_obj
from dreampolish.assets.reading.scene import Scene
from dreampolish.assets.reading.source import MeshFiles
from dreampolish.assets.reading.surface import colors_at
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.renderers.mesh import ColorOf

LARGEST_PICTURE = 4096
"""Pixels of a picture's side, at most."""
TEXELS_AT_ONCE = 1 << 16
"""Texels evaluated at once, for the memory's sake."""


@dataclass(frozen=True)
class GivenMesh:
    """A user's mesh: its files, what was read of them, and all parts as one mesh in the scene, faces in order.

    up, front_deg, metres_per_unit: as the file says or the user. scale: the file's units of one world unit.
    """

    files: MeshFiles
    scene: Scene
    mesh: TexturedMesh
    up: str
    front_deg: float
    metres_per_unit: float
    scale: float


@dataclass(frozen=True)
class Colors:
    """New colours and those that the same field had before, from points and normals of the scene.

    detail_kept: how much of what the mesh's own picture shows beyond `before` stays, 0..1.
    """

    now: ColorOf
    before: ColorOf
    detail_kept: float


@dataclass(frozen=True)
class PictureSettings:
    """paint: whether there are new pictures at all. only: the one material that is painted, empty: all. uv: see `layout.layouts`.

    size, dilation, padding: pixels of the pictures. jpeg_quality: 1..100, None for PNG.
    """

    paint: bool
    only: str
    uv: Wanted
    size: int
    dilation: int
    padding: int
    jpeg_quality: int | None


@dataclass(frozen=True)
class Repainted:
    """The GLB; the same in the format that came, files by name; the new pictures by material; what a user should hear."""

    glb: bytes
    originals: dict[str, bytes]
    pictures: dict[str, Float[Tensor, "s s 3"]]
    notes: tuple[str, ...] = field(default=())


def repainted(
    given: GivenMesh,
    vertices: Float[Tensor, "n 3"],
    colors: Colors,
    settings: PictureSettings,
    extras: Mapping[str, Any],
) -> Repainted:
    """The mesh's file with new colours, its places (each once, as `surface.welded` orders them) at `vertices`.

    Raises MeshError where a material cannot be laid out, or moved vertices not be written back.
    """
    moved = _moved(given, vertices)
    parts, shape = moved.scene.parts, moved.mesh
    chosen = chosen_parts(parts, settings.only) if settings.paint else []
    found = layouts(
        parts=parts, mesh=shape, chosen=chosen, wanted=settings.uv, texture_size=settings.size, padding=settings.padding
    )
    pictures = [_picture(mesh=given.mesh, shape=shape, layout=layout, colors=colors, settings=settings) for layout in found]
    is_gltf = given.files.kind in ("glb", "gltf")
    name = given.files.name.rpartition(".")[0]
    data = GltfData(given.files) if is_gltf else gltf_of_scene(moved.scene, given.up, given.metres_per_unit, name)
    numbers = {material: number for number, material in enumerate(dict.fromkeys(part.material for part in parts))}
    paints = [
        Paint(
            material=layout.material if is_gltf else numbers[layout.material],
            picture=_encoded(picture, settings.jpeg_quality),
            corners=_corners(given, layout, is_gltf=is_gltf),
        )
        for layout, picture in zip(found, pictures, strict=True)
    ]
    notes = [*moved.notes, *(note for layout in found for note in layout.notes)]
    originals: dict[str, bytes] = {}
    has_moved = any(np.any(shift) for shift in moved.shifts.values())
    if has_moved and not is_gltf:
        notes.append(f"the polished shape is written to the GLB alone; the {given.files.kind.upper()} is not written")
    elif given.files.kind == "obj" and not any(layout.is_new for layout in found):
        by_number = {layout.material: _encoded(picture, None) for layout, picture in zip(found, pictures, strict=True)}
        originals = repainted_obj(given.files, {number: content for number, content in by_number.items() if number is not None})
    elif given.files.kind == "obj":
        notes.append("new texture coordinates are written to the GLB alone; the OBJ is not written")
    named = {f"{layout.name}": picture for layout, picture in zip(found, pictures, strict=True)}
    change = partial(move_in_document, data=data, moved=moved) if is_gltf and has_moved else None
    return Repainted(repainted_glb(data, paints, extras, change), originals, named, tuple(notes))


def _moved(given: GivenMesh, vertices: Tensor) -> Moved:
    axes = world_from_file(given.up, given.front_deg)
    return moved_scene(scene=given.scene, mesh=given.mesh, vertices=vertices, world_from_file=axes, scale=given.scale)


def _corners(given: GivenMesh, layout: Layout, *, is_gltf: bool) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """New coordinates by the primitive that they belong to; none where the file's own are kept."""
    if not layout.is_new:
        return {}
    starts, parts = face_starts(given.scene.parts), given.scene.parts
    place_of_face = {int(face): row for row, face in enumerate(layout.faces.tolist())}
    found = {}
    for number, part in enumerate(parts):
        if starts[number] in place_of_face:
            row = place_of_face[starts[number]]
            uv = layout.uv[row : row + len(part.faces)].numpy()
            found[part.origin if is_gltf else (0, number)] = (
                _as_filed(part.faces, part.mirrored),
                _as_filed(uv, part.mirrored),
            )
    return found


def _as_filed(rows: np.ndarray, mirrored: bool) -> np.ndarray:
    """Corners in the order of the file, which a mirroring place turns over."""
    return rows[:, ::-1] if mirrored else rows


def _picture(
    mesh: TexturedMesh, shape: TexturedMesh, layout: Layout, colors: Colors, settings: PictureSettings
) -> Float[Tensor, "s s 3"]:
    """The new picture of a material; texels beside a chart continue it, others get the mean colour.

    mesh: as it came. shape: the same, where its vertices lie now.
    """
    size = settings.size
    if colors.detail_kept > 0:
        own = [mesh.textures[number] for number in mesh.face_texture[layout.faces].unique().tolist()]
        largest = max(max(texture.shape[:2]) for texture in own)
        while size < min(largest, LARGEST_PICTURE):
            size *= 2
    surface = layout.surface(shape)
    texels = texels_of(surface, size, settings.dilation)
    with torch.no_grad():
        painted = torch.cat(
            [
                _texel_colors(mesh=mesh, shape=shape, layout=layout, colors=colors, rows=rows, texels=texels)
                for rows in _rows(texels)
            ]
        ).clamp(0, 1)
    picture = painted.mean(0).expand(size, size, 3).clone()
    picture[texels.row, texels.column] = painted
    return picture


def _rows(texels: Texels) -> list[Tensor]:
    return list(torch.arange(len(texels.row)).split(TEXELS_AT_ONCE))


def _texel_colors(
    mesh: TexturedMesh, shape: TexturedMesh, layout: Layout, colors: Colors, rows: Tensor, texels: Texels
) -> Tensor:
    face, shares = layout.faces[texels.face[rows]], texels.barycentric[rows]
    painted = colors.now(*_places(shape, face, shares))
    if colors.detail_kept == 0:
        return painted
    before = colors.before(*_places(mesh, face, shares))
    return painted + colors.detail_kept * (colors_at(mesh, face, shares) - before)


def _places(mesh: TexturedMesh, face: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Points and unit normals within faces."""
    corner = mesh.faces[face]
    points = (shares[..., None] * mesh.vertices[corner]).sum(1)
    return points, torch.nn.functional.normalize((shares[..., None] * mesh.normals[corner]).sum(1), dim=-1)


def _encoded(picture: Float[Tensor, "s s 3"], jpeg_quality: int | None) -> bytes:
    stream = io.BytesIO()
    if jpeg_quality is None:
        Image.fromarray(pixels_of(picture)).save(stream, "PNG", optimize=True)
    else:
        Image.fromarray(pixels_of(picture)).save(stream, "JPEG", quality=jpeg_quality, subsampling=0)
    return stream.getvalue()
