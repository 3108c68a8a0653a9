"""OBJ and MTL as text: positions, texture coordinates, faces and materials, in the order of the file."""

import codecs
from dataclasses import dataclass

import numpy as np


def text_of(content: bytes) -> str:
    """The text of an OBJ or MTL: UTF-16 and UTF-8 by their byte order mark, else UTF-8; what is none of it becomes marks."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


@dataclass(frozen=True)
class WavefrontMesh:
    """positions (V, 3), uvs (T, 2), normals (N, 3); corners (F, 3, 3): position, uv and normal index of each corner of each
    triangle; material_indices (F,) into material_names; material_libraries: the MTL files that the text asks for.

    colors: (V, 3) in [0, 1] where every vertex line has three numbers more, else None. object_names, object_indices (F,): the `o` or
    `g` line that each face stands under."""

    positions: np.ndarray
    uvs: np.ndarray
    normals: np.ndarray
    corners: np.ndarray
    material_indices: np.ndarray
    material_names: list[str]
    material_libraries: list[str]
    colors: np.ndarray | None
    object_names: list[str]
    object_indices: np.ndarray


@dataclass(frozen=True)
class Material:
    """diffuse: RGB in [0, 1]; opacity: 1 is opaque; texture: the path of the diffuse map as written, or None."""

    diffuse: tuple[float, float, float]
    opacity: float
    texture: str | None


def _corner(token: str, counts: tuple[int, int, int]) -> tuple[int, int, int]:
    """One face token ("3", "3/1", "3//2", "-1/-1/-1") as indices from 0."""
    parts = token.split("/")
    found = [-1, -1, -1]
    for place, part in enumerate(parts[:3]):
        if part:
            index = int(part)
            found[place] = index - 1 if index > 0 else counts[place] + index
    return found[0], found[1], found[2]


def _numbers(lines: list[str], width: int) -> np.ndarray:
    """The first `width` numbers of each line as (len(lines), width) float64; lines with fewer are padded by 0."""
    rows = [line.split()[1 : 1 + width] for line in lines]
    return np.array([row + ["0"] * (width - len(row)) for row in rows], dtype=np.float64).reshape(-1, width)


def parse_obj(text: str) -> WavefrontMesh:
    """Read the positions, uvs, normals, faces and material names of an OBJ text.

    Raises ValueError when the text holds no face, or a face names a vertex that is not there.
    """
    positions: list[str] = []
    uvs: list[str] = []
    normals: list[str] = []
    corners: list[tuple[tuple[int, int, int], ...]] = []
    material_indices: list[int] = []
    object_indices: list[int] = []
    names: dict[str, int] = {"": 0}
    objects: list[str] = [""]
    libraries: list[str] = []
    current = 0
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        word, _, rest = line.lstrip().partition(" ")
        if word == "v":
            positions.append(line)
        elif word == "vt":
            uvs.append(line)
        elif word == "vn":
            normals.append(line)
        elif word == "f":
            counts = (len(positions), len(uvs), len(normals))
            polygon = [_corner(token, counts) for token in rest.split()]
            for second in range(1, len(polygon) - 1):
                corners.append((polygon[0], polygon[second], polygon[second + 1]))
                material_indices.append(current)
                object_indices.append(len(objects) - 1)
        elif word == "usemtl":
            current = names.setdefault(rest.strip(), len(names))
        elif word in ("o", "g"):
            objects.append(rest.strip())
        elif word == "mtllib":
            libraries.append(rest.strip())
    if not corners:
        raise ValueError("the OBJ text holds no face")
    found = np.array(corners, dtype=np.int64)
    _check_corners(found, (len(positions), len(uvs), len(normals)))
    return WavefrontMesh(
        positions=_numbers(positions, 3),
        uvs=_numbers(uvs, 2),
        normals=_numbers(normals, 3),
        corners=found,
        material_indices=np.array(material_indices, dtype=np.int64),
        material_names=list(names),
        material_libraries=libraries,
        colors=_vertex_colors(positions),
        object_names=objects,
        object_indices=np.array(object_indices, dtype=np.int64),
    )


def _check_corners(corners: np.ndarray, counts: tuple[int, int, int]) -> None:
    for place, what in enumerate(("vertex", "texture coordinate", "normal")):
        least = 0 if place == 0 else -1
        if corners[:, :, place].max() >= counts[place] or corners[:, :, place].min() < least:
            raise ValueError(f"a face names a {what} that is not there ({counts[place]:,} are)")


def _vertex_colors(lines: list[str]) -> np.ndarray | None:
    """The colours behind the positions ("v x y z r g b"), where every line has them: 0..1, or 0..255 where one is above 1."""
    if not all(len(line.split()) >= 7 for line in lines):
        return None
    found = np.array([line.split()[4:7] for line in lines], dtype=np.float64)
    return np.clip(found / 255 if found.max(initial=0) > 1 else found, 0, 1)


def parse_mtl(text: str) -> dict[str, Material]:
    """The materials of an MTL text by name; a missing diffuse colour is light grey, a missing opacity 1."""
    fields: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            current = fields.setdefault(rest.strip(), {})
        elif word in ("Kd", "d", "Tr", "map_Kd"):
            current[word] = rest.strip()
    return {name: _material(found) for name, found in fields.items()}


def _material(found: dict[str, str]) -> Material:
    """A material from its MTL statements."""
    diffuse = [min(max(float(x), 0.0), 1.0) for x in found.get("Kd", "0.8 0.8 0.8").split()[:3]]
    opacity = float(found["d"].split()[-1]) if "d" in found else 1.0
    return Material((diffuse[0], diffuse[-2], diffuse[-1]), opacity, found.get("map_Kd"))


_VALUES = {"-blendu": 1, "-blendv": 1, "-cc": 1, "-clamp": 1, "-texres": 1, "-bm": 1, "-boost": 1, "-mm": 2, "-imfchan": 1}
"""Options of a map statement and how many values follow; -o, -s and -t take one to three numbers."""


def map_path(statement: str) -> str:
    """The file's name in a map statement, behind its options; names may hold spaces."""
    words = statement.split()
    while words and words[0].startswith("-"):
        option = words.pop(0)
        taken = _VALUES.get(option, 0)
        if option in ("-o", "-s", "-t"):
            while taken < 3 and taken < len(words) - 1 and _is_number(words[taken]):
                taken += 1
        words = words[taken:]
    return " ".join(words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
