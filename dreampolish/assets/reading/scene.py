"""What a mesh file holds, whatever its format: parts in place, each with its look."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

MAX_TRIANGLES = 2_000_000
"""Of a file, at most; more are refused. The rasteriser and the search trees hold as many in some 2 GiB."""

Wrap = tuple[str, str]
"""How a texture goes on beyond [0, 1] along u and v: repeat, clamp or mirror."""

REPEATED: Wrap = ("repeat", "repeat")


class MeshError(ValueError):
    """A mesh cannot be used; the message says in one line why and what to do."""


@dataclass(frozen=True)
class Look:
    """The base colour of a material. color: linear RGB that multiplies the texture, or is the colour where there is none.

    texture: (h, w, 3) sRGB in [0, 1], row 0 on top, or None.
    """

    name: str
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: np.ndarray | None = None
    wrap: Wrap = REPEATED


@dataclass(frozen=True)
class Part:
    """One piece of a scene with one material, in place.

    positions: in the file's own unit and axes, after the scene graph's transforms. uv: glTF's, (0, 0) upper left, as the base colour
    reads them; None without. colors: linear RGB of the vertices that multiplies the look's, None without. normals: unit; None where
    the file has none. origin: the number of the mesh and of its primitive in the file. material: its number there, None for the
    format's default. faces: triangles, outward where the file's are. mirrored: whether the place mirrors the piece, whose faces the
    file has the other way round. linear: what turns and scales the piece's own frame into the file's, (3, 3), or (v, 3, 3) where a
    skin does so vertex by vertex; None where they are one.
    """

    name: str
    look: Look
    positions: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "v 2"] | None = None
    normals: Float[np.ndarray, "v 3"] | None = None
    colors: Float[np.ndarray, "v 3"] | None = None
    origin: tuple[int, int] = (0, 0)
    material: int | None = None
    mirrored: bool = False
    linear: np.ndarray | None = None


@dataclass(frozen=True)
class Scene:
    """Parts in the order of the file. up: "x", "y" or "z"; None where the format does not say. metres_per_unit: None likewise.

    notes: what a user should hear, one sentence each.
    """

    parts: tuple[Part, ...]
    up: str | None
    metres_per_unit: float | None
    notes: tuple[str, ...] = field(default=())


def check_triangles(count: int, name: str) -> None:
    """Raise MeshError where a file has more triangles than are worked on."""
    if count > MAX_TRIANGLES:
        raise MeshError(f"{name} has {count:,} triangles; at most {MAX_TRIANGLES:,} fit: decimate it first")
