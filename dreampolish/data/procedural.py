"""Objects that priors/procedural makes: one file each, described by a manifest.

Frames: a file's object stands z up, in metres, its box centred on the origin, its front towards `front_deg` (degrees counter-clockwise
from +x, seen from above; None: the object has no front). Painted meshes are in the world frame of docs/conventions.md. Colours are
display-referred sRGB in [0, 1].
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreampolish.data.captions import color_word, compose_caption
from dreampolish.data.library import BOUNDING_RADIUS, PaintedMesh, _corner_normals

CREASE_DEG = 40.0
"""Faces that meet at less than this angle are shaded as one smooth surface, as in the libraries."""
COLOR_LEVELS = 16
"""Steps of each channel between which the main colour does not tell."""


@dataclass(frozen=True)
class ProceduralObject:
    """vertices (V, 3) float32, metres; faces (F, 3) int64, none without area; corner_colors (F, 3, 3) in [0, 1]."""

    vertices: np.ndarray
    faces: np.ndarray
    corner_colors: np.ndarray


@dataclass(frozen=True)
class ManifestEntry:
    """One object of a manifest. words: nouns, the usual one first; extent_m: width (right to left), depth (front to back), height;
    seconds: what it took to make, None where unknown; use: whether to train on it, else reason says why not."""

    file: str
    generator: str
    seed: int
    words: tuple[str, ...]
    front_deg: float | None
    extent_m: tuple[float, float, float]
    color: str | None
    material: str | None
    proportion: str | None
    triangles: int
    seconds: float | None
    use: bool
    reason: str


def load_object(path: Path) -> ProceduralObject:
    """Read one object. Raises ValueError where no face has an area, and what numpy raises for a file that is none of ours."""
    with np.load(path, allow_pickle=False) as arrays:
        vertices = arrays["vertices"].astype(np.float32) * (float(arrays["size"]) / 65534)
        faces, colors = arrays["faces"].astype(np.int64), arrays["colors"].astype(np.float32) / 255
    kept = face_areas(vertices, faces) > 1e-9 * float(np.ptp(vertices, axis=0).max()) ** 2
    if not kept.any():
        raise ValueError(f"{path}: no face has an area")
    return ProceduralObject(vertices, faces[kept], colors[kept])


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Areas (F,) of triangles."""
    corners = vertices[faces].astype(np.float64)
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def facing_front(vertices: np.ndarray, front_deg: float | None) -> np.ndarray:
    """Vertices turned about z so that the front points to +x."""
    angle = -math.radians(front_deg or 0.0)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    return vertices @ turn.T


def painted_mesh(item: ProceduralObject, front_deg: float | None) -> PaintedMesh:
    """The object in the world frame, box centre at the origin, radius BOUNDING_RADIUS, as one paint whose texture holds the corners'
    colours (colour_atlas)."""
    turned = facing_front(item.vertices.astype(np.float64), front_deg)
    used = turned[np.unique(item.faces)]
    centred = turned - (used.min(axis=0) + used.max(axis=0)) / 2
    vertices = centred * (BOUNDING_RADIUS / np.linalg.norm(centred[np.unique(item.faces)], axis=1).max())
    corners = vertices[item.faces]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    texture, uvs = color_atlas(item.corner_colors)
    mean = (item.corner_colors.mean(axis=1) * face_areas(vertices, item.faces)[:, None]).sum(axis=0)
    return PaintedMesh(
        vertices=vertices.astype(np.float32),
        faces=item.faces,
        corner_normals=_corner_normals(vertices, item.faces, doubled, crease_deg=CREASE_DEG).astype(np.float32),
        corner_uvs=uvs,
        face_paints=np.zeros(len(item.faces), dtype=np.int64),
        colors=(mean / face_areas(vertices, item.faces).sum())[None].astype(np.float32),
        opacities=np.ones(1, dtype=np.float32),
        textures=(texture,),
    )


def color_atlas(corner_colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A texture (h, w, 4) uint8 and corner coordinates (F, 3, 2) that show corner colours (F, 3, 3) blended linearly over each face.

    Every face owns two by two texels: its corners and, opposite the first, second + third - first, with which bilinear look-up is
    linear (cut to the range of colours).
    """
    n = len(corner_colors)
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    first, second, third = corner_colors[:, 0], corner_colors[:, 1], corner_colors[:, 2]
    blocks = np.zeros((rows * columns, 2, 2, 4))
    blocks[:n, 0, 0, :3], blocks[:n, 0, 1, :3], blocks[:n, 1, 0, :3] = first, second, third
    blocks[:n, 1, 1, :3], blocks[..., 3] = second + third - first, 1
    texture = blocks.reshape(rows, columns, 2, 2, 4).transpose((0, 2, 1, 3, 4)).reshape(2 * rows, 2 * columns, 4)
    x = 2 * (np.arange(n) % columns)[:, None] + np.array([0.5, 1.5, 0.5])
    y = 2 * (np.arange(n) // columns)[:, None] + np.array([0.5, 0.5, 1.5])
    uvs = np.stack([x / (2 * columns), 1 - y / (2 * rows)], axis=-1)
    return np.round(texture.clip(0, 1) * 255).astype(np.uint8), uvs


def extent_of(item: ProceduralObject, front_deg: float | None) -> tuple[float, float, float]:
    """Width (right to left), depth (front to back) and height, metres."""
    depth, width, height = np.ptp(facing_front(item.vertices[np.unique(item.faces)], front_deg), axis=0).tolist()
    return width, depth, height


def main_color(item: ProceduralObject, least_share: float) -> str | None:
    """The word for the colour of the largest part of the surface; None where it covers less than `least_share` or has no word."""
    colors = item.corner_colors.mean(axis=1)
    areas = face_areas(item.vertices, item.faces)
    steps, which = np.unique(np.round(colors * (COLOR_LEVELS - 1)).astype(int), axis=0, return_inverse=True)
    shares: dict[str | None, float] = defaultdict(float)
    for step, area in zip(steps, np.bincount(which.reshape(-1), areas), strict=True):
        shares[color_word((step / (COLOR_LEVELS - 1)).tolist())] += float(area)
    word, largest = max(shares.items(), key=lambda item: item[1])
    return word if largest >= least_share * float(areas.sum()) else None


def brightness(item: ProceduralObject) -> float:
    """The mean over the surface of each point's largest channel: near 0 for what came out black."""
    areas = face_areas(item.vertices, item.faces)
    return float((item.corner_colors.mean(axis=1).max(axis=1) * areas).sum() / areas.sum())


def proportion_word(extent: Sequence[float], typical: Sequence[float], margin: float) -> str | None:
    """How an object differs from its kind: tall, low, wide, narrow or deep, by extents (width, depth, height), or None.

    margin: factor by which an extent, against the geometric mean of all three, must differ from the typical one.
    """
    logs = np.log(np.maximum(extent, 1e-6)) - np.log(np.maximum(typical, 1e-6))
    off = logs - logs.mean()
    axis = int(np.abs(off).argmax())
    if abs(off[axis]) < math.log(margin):
        return None
    return (("narrow", "wide"), (None, "deep"), ("low", "tall"))[axis][int(off[axis] > 0)]


def caption(entry: ManifestEntry) -> str:
    """All that the manifest tells, in natural order: "a tall white wooden bookcase"."""
    adjectives = [word for word in (entry.proportion, entry.color, entry.material) if word]
    return compose_caption(entry.words[0], " ".join(adjectives) or None, None)
