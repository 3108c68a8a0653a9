"""Moved vertices on their way back into a mesh's file: in the frame of each piece, with normals that keep their creases."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.repainting.gltf_back import Growing
from dreampolish.assets.reading.scene import MeshError, Part, Scene
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.mesh.topology import face_normals

_FLOAT = 5126
_NORMAL_STEP = 1e-3
"""Normals at one place that differ by less are one."""

Origin = tuple[int, int]


@dataclass(frozen=True)
class Moved:
    """A scene after its vertices have moved, and by how much in each piece's own frame: (V, 3) by (mesh, primitive).

    normals: the new ones there, of pieces that have some. notes: what a user should hear.
    """

    scene: Scene
    mesh: TexturedMesh
    shifts: Mapping[Origin, Float[np.ndarray, "v 3"]]
    normals: Mapping[Origin, Float[np.ndarray, "v 3"]]
    notes: tuple[str, ...]


def moved_scene(
    scene: Scene,
    mesh: TexturedMesh,
    vertices: Float[Tensor, "n 3"],
    world_from_file: Float[np.ndarray, "3 3"],
    scale: float,
) -> Moved:
    """A scene whose places have moved.

    mesh: its parts as one mesh, in the scene. vertices: where each of its places, in the order of `surface.welded`, lies now.
    world_from_file: rotation. scale: the file's units of one world unit. Copies of one piece share the mean of their shifts.
    Raises MeshError for another number of vertices, and for a piece that its place flattens.
    """
    places, number = torch.unique(mesh.vertices, dim=0, return_inverse=True)
    if len(places) != len(vertices):
        raise MeshError(f"{len(vertices):,} vertices for a mesh of {len(places):,} places")
    shift = (vertices[number].double() - places[number].double()).numpy() * scale @ world_from_file
    if not shift.any():
        still = {part.origin: np.zeros_like(part.positions) for part in scene.parts}
        return Moved(scene=scene, mesh=mesh, shifts=still, normals={}, notes=())
    starts = np.cumsum([0] + [len(part.positions) for part in scene.parts])
    local = [_in_own_frame(part, shift[starts[k] : starts[k + 1]]) for k, part in enumerate(scene.parts)]
    shifts = _shared(scene.parts, local)
    parts = tuple(replace(part, positions=part.positions + _applied(part, shifts[part.origin])) for part in scene.parts)
    moved = replace(mesh, vertices=vertices[number])
    normals = _normals(moved, number)
    moved = replace(moved, normals=normals)
    in_file = normals.double().numpy() @ world_from_file
    parts = tuple(
        part if part.normals is None else replace(part, normals=in_file[starts[k] : starts[k + 1]])
        for k, part in enumerate(parts)
    )
    own = {part.origin: _normals_in_own_frame(part) for part in reversed(parts) if part.normals is not None}
    copies = len(parts) - len(shifts)
    notes = (f"{copies} copies of a piece share its shape: all get the mean of what polishing moved",) if copies else ()
    return Moved(scene=replace(scene, parts=parts), mesh=moved, shifts=shifts, normals=own, notes=notes)


def _in_own_frame(part: Part, shift: np.ndarray) -> np.ndarray:
    """Shifts of the file's frame in the piece's own."""
    if part.linear is None:
        return shift
    try:
        inverse = np.linalg.inv(part.linear)
    except np.linalg.LinAlgError:
        raise MeshError(
            f"{part.name} is flattened by its place in the file, so that a polished shape cannot be written back"
        ) from None
    return np.einsum("...ij,...j->...i", inverse, shift)


def _applied(part: Part, shift: np.ndarray) -> np.ndarray:
    return shift if part.linear is None else np.einsum("...ij,...j->...i", part.linear, shift)


def _shared(parts: tuple[Part, ...], local: list[np.ndarray]) -> dict[Origin, np.ndarray]:
    """By piece, the mean over its copies."""
    found: dict[Origin, list[np.ndarray]] = {}
    for part, shift in zip(parts, local, strict=True):
        found.setdefault(part.origin, []).append(shift)
    return {origin: np.mean(shifts, axis=0) for origin, shifts in found.items()}


def _normals(mesh: TexturedMesh, number: Int[Tensor, " v"]) -> Float[Tensor, "v 3"]:
    """Area-weighted normals of the vertices of one place that had one normal: what was smooth stays smooth, creases stay creases."""
    rounded = torch.round(mesh.normals / _NORMAL_STEP).long()
    _, group = torch.unique(torch.cat([number[:, None], rounded], dim=1), dim=0, return_inverse=True)
    corner = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=-1, keepdim=True)
    weighted = face_normals(mesh.vertices, mesh.faces) * area
    summed = torch.zeros(int(group.max()) + 1, 3)
    for k in range(3):
        summed.index_add_(0, group[mesh.faces[:, k]], weighted)
    found = torch.nn.functional.normalize(summed, dim=-1)[group]
    # A file may turn its normals against its faces.
    found = torch.where((found * mesh.normals).sum(-1, keepdim=True) < 0, -found, found)
    return torch.where(found.norm(dim=-1, keepdim=True) < 0.5, mesh.normals, found)


def _normals_in_own_frame(part: Part) -> np.ndarray:
    """A normal of the file's frame is the inverse transpose's image of the piece's own."""
    assert part.normals is not None
    if part.linear is None:
        return part.normals
    turned = np.einsum("...ji,...j->...i", part.linear, part.normals)
    return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)


def move_in_document(growing: Growing, data: GltfData, moved: Moved) -> None:
    """Give a document's pieces accessors of moved positions and new normals; pieces that did not move keep theirs, bit for bit."""
    for (mesh, number), shift in moved.shifts.items():
        if not np.any(shift):
            continue
        attributes = growing.document["meshes"][mesh]["primitives"][number]["attributes"]
        like = {"componentType": _FLOAT, "type": "VEC3"}
        places = (data.numbers(attributes["POSITION"]) + shift).astype(np.float32)
        attributes["POSITION"] = growing.accessor(places, {**like, "min": 0, "max": 0})
        if "NORMAL" in attributes:
            attributes["NORMAL"] = growing.accessor(moved.normals[mesh, number].astype(np.float32), like)
