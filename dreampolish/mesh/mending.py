"""What is wrong with a mesh from elsewhere, and how it is mended: faces dropped, turned and added; no vertex moves.

Holes are closed by cutting off the sharpest corner of their border, again and again (ear cutting by the smallest angle).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.mesh.topology import component_of_face, face_areas, topology
from dreampolish.mesh.winding import wound_alike

CRUMB_SHARE = 0.001
"""Parts with a smaller share of the surface are crumbs. [choice]"""

LONGEST_BORDER = 5000
"""Edges of a hole that is filled, at most: cutting takes the square of it."""


@dataclass(frozen=True)
class Flaws:
    """Figures of a mesh. flat: faces without area. doubled: faces on the corners of another. holes: closed borders."""

    flat: int
    doubled: int
    turned: int
    holes: int
    border_edges: int
    nonmanifold_edges: int
    parts: int
    crumbs: int

    def told(self) -> str:
        """In words; empty without flaws."""
        named = {
            f"{self.holes:,} holes ({self.border_edges:,} edges)": self.border_edges,
            f"{self.nonmanifold_edges:,} edges of more than two faces": self.nonmanifold_edges,
            f"{self.turned:,} faces turned inward": self.turned,
            f"{self.doubled:,} doubled faces": self.doubled,
            f"{self.flat:,} faces without area": self.flat,
            f"{self.crumbs:,} loose crumbs of {self.parts:,} parts": self.crumbs,
        }
        return ", ".join(words for words, count in named.items() if count)


@dataclass(frozen=True)
class Mended:
    """faces (M, 3): corners by the old vertices' numbers. source (M,): the old face that each is, perhaps turned; -1 for a new one."""

    faces: Int[Tensor, "m 3"]
    source: Int[Tensor, " m"]


def flaws_of(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Flaws:
    """The flaws of a mesh whose every place is one vertex."""
    kept = whole_faces(faces)
    clean = faces[kept]
    found, areas = topology(clean), face_areas(vertices, faces)
    part = component_of_face(clean)
    flat = int((areas <= 0).sum() + ((areas > 0) & _repeats(faces)).sum())
    turned = int((wound_alike(vertices, clean) != clean).any(1).sum())
    return Flaws(
        flat=flat,
        doubled=len(faces) - len(kept) - int(_repeats(faces).sum()),
        turned=turned,
        holes=len(borders(clean)),
        border_edges=found.n_border_edges,
        nonmanifold_edges=found.n_nonmanifold_edges,
        parts=found.n_components,
        crumbs=int(_crumbs(areas[kept], part).sum()),
    )


def _repeats(faces: Tensor) -> Tensor:
    return (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])


def whole_faces(faces: Int[Tensor, "f 3"]) -> Int[Tensor, " n"]:
    """Numbers of the faces with three different corners, the first of those that share all three."""
    distinct = (~_repeats(faces)).nonzero()[:, 0]
    first = np.unique(faces[distinct].sort(dim=1).values.numpy(), axis=0, return_index=True)[1]
    return distinct[torch.from_numpy(np.sort(first))]


def _crumbs(areas: Tensor, part: Tensor) -> Tensor:
    """Which parts are crumbs."""
    by_part = torch.zeros(int(part.max()) + 1, dtype=torch.float64).index_add_(0, part, areas.double())
    return by_part < CRUMB_SHARE * by_part.sum()


def mended(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Mended:
    """The mesh without doubled and empty faces and crumbs, wound outward, its holes filled."""
    kept = whole_faces(faces)
    part = component_of_face(faces[kept])
    kept = kept[~_crumbs(face_areas(vertices, faces[kept]), part)[part]]
    found = wound_alike(vertices, faces[kept])
    places = vertices.double().numpy()
    added = [_filled(places, loop) for loop in borders(found) if len(loop) <= LONGEST_BORDER]
    new = torch.from_numpy(np.concatenate(added)).to(faces) if added else faces[:0]
    return Mended(torch.cat([found, new]), torch.cat([kept, torch.full((len(new),), -1)]))


def borders(faces: Int[Tensor, "f 3"]) -> list[list[int]]:
    """The closed borders as vertices in the direction of the faces that are missing there; faces are wound alike."""
    corners = faces.numpy().astype(np.int64)
    start, stop = corners.reshape(-1), corners[:, [1, 2, 0]].reshape(-1)
    size = int(corners.max(initial=0)) + 1
    undirected = np.minimum(start, stop) * size + np.maximum(start, stop)
    once = np.isin(undirected, _single(undirected))
    after: dict[int, list[int]] = {}
    for here, there in zip(stop[once].tolist(), start[once].tolist(), strict=True):
        after.setdefault(here, []).append(there)
    loops = []
    while after:
        loop = [next(iter(after))]
        while loop[-1] in after:
            here = loop[-1]
            following = after[here].pop()
            if not after[here]:
                del after[here]
            if following in loop:
                place = loop.index(following)
                loops.append(loop[place:])
                loop = loop[: place + 1]
                if place == 0:
                    break
            else:
                loop.append(following)
    return [loop for loop in loops if len(loop) > 2]


def _single(keys: np.ndarray) -> np.ndarray:
    found, times = np.unique(keys, return_counts=True)
    return found[times == 1]


def _filled(places: np.ndarray, loop: list[int]) -> np.ndarray:
    """Triangles (N - 2, 3) that close a border of N vertices."""
    ring, triangles = list(loop), []
    angles = [_angle(places, ring, index) for index in range(len(ring))]
    while len(ring) > 3:
        index = int(np.argmin(angles))
        triangles.append((ring[index - 1], ring[index], ring[(index + 1) % len(ring)]))
        del ring[index], angles[index]
        for changed in (index - 1, index % len(ring)):
            angles[changed] = _angle(places, ring, changed)
    return np.array([*triangles, tuple(ring)], np.int64)


def _angle(places: np.ndarray, ring: list[int], index: int) -> float:
    """Between the two edges of a border that meet at a vertex, inside the hole; of a corner that juts into it, the larger one."""
    before, here, after = (places[ring[k % len(ring)]] for k in (index - 1, index, index + 1))
    one, other = before - here, after - here
    length = np.linalg.norm(one) * np.linalg.norm(other)
    angle = float(np.arccos(np.clip(one @ other / max(length, 1e-300), -1, 1)))
    middle = places[ring].mean(axis=0) - here
    return angle if float((one + other) @ middle) >= 0 else 2 * np.pi - angle
