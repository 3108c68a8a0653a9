"""Where the colours of a material go in a picture: the file's own texture coordinates where they can be used, else new ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.assets.bake import faces_of_texels
from dreampolish.assets.reading.scene import MeshError, Part
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.unwrap import Unwrapped, unwrap
from dreampolish.mesh.topology import face_normals

Wanted = Literal["auto", "keep", "new"]

LARGEST_OVERLAP = 0.05
"""Share of the coordinates' area that may be used twice, or new ones are made. [choice]"""
LARGEST_UNUSABLE = 0.02
"""Share of the surface whose coordinates may span no area or more than one tile, or new ones are made. [choice]"""
CHECK_SIZE = 512
"""Pixels of the picture in which overlaps are measured."""
MOST_UNWRAPPED = 150_000
"""Triangles of a material that are unwrapped, at most: xatlas takes minutes for more."""


@dataclass(frozen=True)
class Layout:
    """One material's place in its picture: the faces (numbers in the whole mesh) and their corners' coordinates in [0, 1].

    is_new: whether the coordinates are not the file's. notes: what a user should hear.
    """

    material: int | None
    name: str
    faces: Int[Tensor, " f"]
    uv: Float[Tensor, "f 3 2"]
    is_new: bool
    notes: tuple[str, ...]

    def surface(self, mesh: TexturedMesh) -> Unwrapped:
        """The faces with their coordinates, every corner a vertex of its own, for baking."""
        corner = mesh.faces[self.faces].reshape(-1)
        return Unwrapped(
            vertices=mesh.vertices[corner],
            normals=mesh.normals[corner],
            uv=self.uv.reshape(-1, 2),
            faces=torch.arange(len(corner)).view(-1, 3),
            source=corner,
        )


def face_starts(parts: Sequence[Part]) -> list[int]:
    """The number in the whole mesh of each part's first face, and of the face behind the last."""
    return np.cumsum([0] + [len(part.faces) for part in parts]).tolist()


def chosen_parts(parts: Sequence[Part], only: str) -> list[int]:
    """Numbers of the parts that are painted: all, or those of the material called `only` (or "#3" by number). Raises MeshError."""
    if not only:
        return list(range(len(parts)))
    numbers = {part.material for part in parts if only in (part.look.name, f"#{part.material}")}
    names = {part.material: part.look.name or f"#{part.material}" for part in parts}
    known = ", ".join(f"{name} (#{number})" for number, name in list(names.items())[:20])
    if not numbers:
        raise MeshError(f"no material {only!r}; there are {known}")
    if len(numbers) > 1:
        raise MeshError(f"{len(numbers)} materials are called {only!r}; name one by number: {known}")
    return [number for number, part in enumerate(parts) if part.material in numbers]


def layouts(
    parts: Sequence[Part], mesh: TexturedMesh, chosen: Sequence[int], wanted: Wanted, texture_size: int, padding: int
) -> list[Layout]:
    """One layout a material of the chosen parts. mesh: all parts joined. Copies of one piece of the file share its first place.

    Raises MeshError where coordinates are to be kept and there are none.
    """
    starts = face_starts(parts)
    by_material: dict[int | None, list[int]] = {}
    for number in chosen:
        by_material.setdefault(parts[number].material, []).append(number)
    found = []
    for material, numbers in by_material.items():
        first = {parts[number].origin: number for number in reversed(numbers)}
        own = sorted(first.values())
        faces = torch.cat([torch.arange(starts[number], starts[number + 1]) for number in own])
        name = parts[own[0]].look.name or "the mesh"
        notes = [f"{name}: {len(numbers) - len(own)} copies share the colours of the first"] if len(own) < len(numbers) else []
        complaint, uv = _given(name=name, parts=[parts[number] for number in own], mesh=mesh, faces=faces)
        if wanted == "new" or (wanted == "auto" and complaint):
            notes += [f"{complaint}; it is unwrapped anew"] if complaint and uv is not None and wanted == "auto" else []
            uv = _unwrapped(mesh=mesh, faces=faces, name=name, texture_size=texture_size, padding=padding)
        elif uv is None:
            raise MeshError(f"{complaint}; --uv new makes some")
        elif complaint:
            notes.append(complaint)
        is_new = wanted == "new" or (wanted == "auto" and bool(complaint))
        found.append(Layout(material=material, name=name, faces=faces, uv=uv, is_new=is_new, notes=tuple(notes)))
    return found


def _given(name: str, parts: Sequence[Part], mesh: TexturedMesh, faces: Tensor) -> tuple[str, Tensor | None]:
    """What is wrong with the file's coordinates, empty if nothing, and the corners' coordinates moved into [0, 1]."""
    if any(part.uv is None for part in parts):
        return f"{name} has no texture coordinates", None
    uv = torch.cat([torch.tensor(part.uv[part.faces], dtype=torch.float64) for part in parts if part.uv is not None])
    if not bool(torch.isfinite(uv).all()):
        return f"{name} has texture coordinates that are not finite", None
    # A face in another tile of a repeated picture shows the same texels.
    uv = uv - (uv.amin(1, keepdim=True) + 1e-6).floor()
    corners = mesh.vertices[mesh.faces[faces]]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    area = area / area.sum().clamp_min(1e-30)
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    span = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).abs() / 2
    empty = float(area[span < 1e-12].sum())
    if empty > 0.5:
        return f"{name} has texture coordinates without area", None
    if empty > LARGEST_UNUSABLE:
        return f"{empty:.0%} of {name} has texture coordinates without area", uv.float()
    wide = float(area[uv.amax((1, 2)) > 1 + 1e-4].sum())
    if wide > LARGEST_UNUSABLE:
        return f"{wide:.0%} of {name} has texture coordinates outside [0, 1]", uv.float()
    overlap = _overlap(uv.float(), float(span.sum()))
    if overlap > LARGEST_OVERLAP:
        return f"{overlap:.0%} of the texture coordinates of {name} lie over others", uv.float()
    return "", uv.float()


def _overlap(uv: Tensor, area: float) -> float:
    """The share of the coordinates' area under which others lie."""
    count = len(uv) * 3
    flat = Unwrapped(
        vertices=torch.zeros(count, 3),
        normals=torch.zeros(count, 3),
        uv=uv.reshape(-1, 2),
        faces=torch.arange(count).view(-1, 3),
        source=torch.arange(count),
    )
    covered = float((faces_of_texels(flat, CHECK_SIZE) >= 0).double().mean())
    return max(0.0, 1 - covered / max(area, 1e-12))


def _unwrapped(mesh: TexturedMesh, faces: Tensor, name: str, texture_size: int, padding: int) -> Tensor:
    """New coordinates of the faces' corners."""
    if len(faces) > MOST_UNWRAPPED:
        raise MeshError(
            f"{name} has {len(faces):,} triangles and no usable texture coordinates; at most {MOST_UNWRAPPED:,} are unwrapped: "
            "unwrap it in your own program, or decimate it"
        )
    corner = mesh.vertices[mesh.faces[faces]].reshape(-1, 3)
    places, number = torch.unique(corner, dim=0, return_inverse=True)
    wanted = number.view(-1, 3)
    flat = face_normals(places, wanted).norm(dim=-1) < 0.5
    found = unwrap(places, wanted, texture_size, padding)
    if not torch.equal(found.source[found.faces], wanted):
        raise MeshError(f"{name} could not be unwrapped: {int(flat.sum()):,} of its triangles have no area")
    return found.uv[found.faces]
