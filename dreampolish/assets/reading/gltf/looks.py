"""Base colours of glTF materials: factors, textures with their transforms, specular-glossiness, emission where nothing else is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dreampolish.assets.reading.gltf.data import GltfData
from dreampolish.assets.reading.images import texture_of_bytes
from dreampolish.assets.reading.scene import REPEATED, Look, MeshError, Wrap

_WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
TRANSFORM, SPECULAR = "KHR_texture_transform", "KHR_materials_pbrSpecularGlossiness"


@dataclass(frozen=True)
class Surface:
    """A material's look, the number of the texture coordinates that it reads, and their transform (3, 3).

    slot: where in the material its texture stands, as a path of keys; None without a texture.
    """

    look: Look
    coordinates: int = 0
    transform: np.ndarray | None = None
    slot: tuple[str, ...] | None = None


class Surfaces:
    """The materials of a file, each read once. notes: what a user should hear."""

    def __init__(self, data: GltfData) -> None:
        self._data = data
        self._found: dict[int | None, Surface] = {None: Surface(Look(""))}
        self._textures: dict[int, np.ndarray] = {}
        self.notes: list[str] = []

    def of(self, index: int | None) -> Surface:
        """A material's surface; None: glTF's default, white."""
        if index not in self._found:
            assert index is not None
            self._found[index] = self._read(index)
        return self._found[index]

    def _read(self, index: int) -> Surface:
        material = self._data.entry("materials", index)
        name = str(material.get("name", f"material {index}"))
        if material.get("alphaMode", "OPAQUE") != "OPAQUE":
            self.notes.append(f"{name} is partly transparent (alphaMode {material['alphaMode']}); it is worked with as opaque")
        slot, color, named = color_slot(material)
        emission = [float(value) for value in material.get("emissiveFactor", (0, 0, 0))]
        if max(color) == 0 and max(emission) > 0:
            self.notes.append(f"{name} only glows; its emission is read as its colour")
            slot, color, named = ("emissiveTexture",), emission, material.get("emissiveTexture")
        elif max(emission) > 0:
            self.notes.append(f"{name} glows; its emission is not part of the colours that are worked with")
        look = Look(name, (color[0], color[1], color[2]))
        return Surface(look) if named is None else self._textured(look, named, slot)

    def _textured(self, look: Look, named: dict[str, Any], slot: tuple[str, ...]) -> Surface:
        moved = named.get("extensions", {}).get(TRANSFORM, {})
        texture = self._data.entry("textures", named["index"])
        wrap = REPEATED
        if "sampler" in texture:
            sampler = self._data.entry("samplers", texture["sampler"])
            wrap = (_wrap(sampler.get("wrapS")), _wrap(sampler.get("wrapT")))
        picture = self._picture(texture)
        found = Look(look.name, look.color, picture, wrap)
        return Surface(found, int(moved.get("texCoord", named.get("texCoord", 0))), _transform(moved), slot)

    def _picture(self, texture: dict[str, Any]) -> np.ndarray:
        sources = [entry.get("source") for entry in texture.get("extensions", {}).values() if isinstance(entry, dict)]
        source = texture.get("source", next((each for each in sources if each is not None), None))
        if source is None:
            raise MeshError(f"{self._data.name} has a texture without a picture")
        if source not in self._textures:
            image = self._data.entry("images", source)
            name = f"picture {image.get('name') or source} of {self._data.name}"
            content = self._data.view(image["bufferView"]) if "bufferView" in image else self._data.bytes_of_uri(image["uri"])
            if image.get("mimeType") == "image/ktx2":
                raise MeshError(f"{name} is a KTX2 texture, which is not read; export the mesh again with PNG or JPEG textures")
            self._textures[source], note = texture_of_bytes(content, name)
            self.notes += [note] if note else []
        return self._textures[source]


def color_slot(material: dict[str, Any]) -> tuple[tuple[str, ...], list[float], dict[str, Any] | None]:
    """Where a material's base colour texture stands, the linear factor beside it, and the texture's entry."""
    specular = material.get("extensions", {}).get(SPECULAR)
    if specular is not None:
        factor = [float(value) for value in specular.get("diffuseFactor", (1, 1, 1, 1))[:3]]
        return ("extensions", SPECULAR, "diffuseTexture"), factor, specular.get("diffuseTexture")
    rough = material.get("pbrMetallicRoughness", {})
    factor = [float(value) for value in rough.get("baseColorFactor", (1, 1, 1, 1))[:3]]
    return ("pbrMetallicRoughness", "baseColorTexture"), factor, rough.get("baseColorTexture")


def _wrap(mode: int | None) -> str:
    return _WRAPS.get(10497 if mode is None else mode, "repeat")


def _transform(moved: dict[str, Any]) -> np.ndarray | None:
    """The matrix T R S of KHR_texture_transform, for columns (u, v, 1)."""
    if not {"offset", "rotation", "scale"} & set(moved):
        return None
    (x, y), angle, (across, down) = moved.get("offset", (0, 0)), moved.get("rotation", 0.0), moved.get("scale", (1, 1))
    cosine, sine = np.cos(angle), np.sin(angle)
    turned = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]) @ turned @ np.diag([across, down, 1.0])


__all__ = ["Surface", "Surfaces", "Wrap", "color_slot"]
