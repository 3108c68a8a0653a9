"""A read scene, mended: its parts with faces dropped, turned and added, and their looks."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from dreampolish.assets.reading.scene import Part, Scene
from dreampolish.mesh.mending import Flaws, flaws_of, mended


def flaws_of_scene(scene: Scene) -> Flaws:
    """The flaws of all parts together; corners at one place are one."""
    places, faces, _ = _joined(scene)
    return flaws_of(places, faces)


def mended_scene(scene: Scene) -> Scene:
    """The same parts, mended together. A new face gets the look of a part that it touches, and its colours there."""
    places, faces, own = _joined(scene)
    found = mended(places, faces)
    starts = np.cumsum([0] + [len(part.faces) for part in scene.parts])
    source = found.source.numpy()
    corners = found.faces.numpy()
    part_of = np.searchsorted(starts, source, side="right") - 1
    new = source < 0
    part_of[new] = _touched(corners, part_of, new)
    parts = []
    for number, part in enumerate(scene.parts):
        kept = source[(part_of == number) & ~new]
        turned = (faces.numpy()[kept] != corners[(part_of == number) & ~new]).any(axis=1)
        old = part.faces[kept - starts[number]]
        old = np.where(turned[:, None], old[:, ::-1], old)
        added = corners[(part_of == number) & new]
        parts.append(_with_faces(part, old, _New(added, places.double().numpy(), own[number])))
    return replace(scene, parts=tuple(part for part in parts if len(part.faces)))


def _joined(scene: Scene) -> tuple[torch.Tensor, torch.Tensor, list[np.ndarray]]:
    """Places, each once, the faces over them, and each part's vertices by the number of their place."""
    positions = np.concatenate([part.positions for part in scene.parts])
    places, number = np.unique(positions, axis=0, return_inverse=True)
    number = number.reshape(-1)
    ends = np.cumsum([len(part.positions) for part in scene.parts])
    own = np.split(number, ends[:-1])
    faces = np.concatenate([mine[part.faces] for mine, part in zip(own, scene.parts, strict=True)])
    return torch.from_numpy(places), torch.from_numpy(faces.astype(np.int64)), own


def _touched(corners: np.ndarray, part_of: np.ndarray, new: np.ndarray) -> np.ndarray:
    """For each new face a part that has a face at one of its corners."""
    part_at = np.full(int(corners.max(initial=0)) + 1, -1)
    for k in range(3):
        part_at[corners[~new, k]] = part_of[~new]
    return part_at[corners[new]].max(axis=1)


@dataclass(frozen=True)
class _New:
    """New faces (N, 3) over places (P, 3), and the place of each vertex of the part that gets them."""

    faces: np.ndarray
    places: np.ndarray
    own: np.ndarray


def _with_faces(part: Part, old: np.ndarray, new: _New) -> Part:
    """A part with some of its faces and new ones, whose corners are new vertices that take after its own there."""
    if not len(new.faces):
        return replace(part, faces=old, linear=None, mirrored=False)
    at = np.zeros(len(new.places), np.int64)
    at[new.own] = np.arange(len(new.own))
    like = at[new.faces.reshape(-1)]
    count = len(part.positions)
    corner = new.places[new.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    return replace(
        part,
        positions=np.concatenate([part.positions, corner.reshape(-1, 3)]),
        faces=np.concatenate([old, count + np.arange(len(like)).reshape(-1, 3)]),
        uv=None if part.uv is None else np.concatenate([part.uv, part.uv[like]]),
        normals=None if part.normals is None else np.concatenate([part.normals, np.repeat(normal, 3, axis=0)]),
        colors=None if part.colors is None else np.concatenate([part.colors, part.colors[like]]),
        linear=None,
        mirrored=False,
    )
