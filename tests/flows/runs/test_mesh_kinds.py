"""Every kind of mesh file of docs/using/meshes.md, made small here: read with size and colour, or refused at the door in one line."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreampolish.assets.reading.read import ReadMesh, read_mesh
from dreampolish.assets.reading.surface import colors_at
from flows.runs.given_mesh import keep_mesh
from schemas.config.presets import ConfigError
from stages.runtime.files import PROJECT
from tests.support.gltf_files import COLORS, GltfFile, box, png, quarters, textured_box

SIZE = (0.6, 1.0, 1.6)
"""The box in the world frame."""

RED = (255, 0, 0)

Change = Callable[[GltfFile], None]


def attributes(file: GltfFile) -> dict[str, int]:
    found: dict[str, int] = file.primitive["attributes"]
    return found


def picture(mode: str, kind: str, width: int = 16) -> Change:
    """The texture in another mode and format."""

    def change(file: GltfFile) -> None:
        stream = io.BytesIO()
        Image.fromarray(quarters()).resize((width, 16), Image.Resampling.NEAREST).convert(mode).save(stream, kind)
        file.document["images"][0] = {"bufferView": file.view(stream.getvalue()), "mimeType": f"image/{kind.lower()}"}

    return change


def placed(**node: object) -> Change:
    return lambda file: file.node.update(node)


def looks(**material: object) -> Change:
    return lambda file: file.material.update(material)


def factor_alone(file: GltfFile) -> None:
    file.document["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}}]


def only_glows(file: GltfFile) -> None:
    file.document["materials"] = [{"emissiveTexture": {"index": 0}, "emissiveFactor": [1, 1, 1]}]
    file.material["pbrMetallicRoughness"] = {"baseColorFactor": [0, 0, 0, 1]}


def vertex_colours(file: GltfFile) -> None:
    factor_alone(file)
    file.material["pbrMetallicRoughness"]["baseColorFactor"] = [1, 1, 1, 1]
    attributes(file)["COLOR_0"] = file.accessor(np.tile(np.array([[255, 0, 0, 255]], np.uint8), (24, 1)), normalized=True)


def colours_and_white(file: GltfFile) -> None:
    white = np.full((2, 2, 3), 255, np.uint8)
    file.document["images"][0] = {"bufferView": file.view(png(white)), "mimeType": "image/png"}
    attributes(file)["COLOR_0"] = file.accessor(np.tile(np.array([[1, 0, 0]], np.float32), (24, 1)))


def moved_coordinates(file: GltfFile) -> None:
    """Coordinates half as large, undone by the transform."""
    attributes(file)["TEXCOORD_0"] = file.accessor(box()[2] / 2)
    reference = file.material["pbrMetallicRoughness"]["baseColorTexture"]
    reference["extensions"] = {"KHR_texture_transform": {"scale": [2, 2]}}


def quantised(file: GltfFile) -> None:
    file.require("KHR_mesh_quantization")
    shorts = (box()[0] / 0.8 * 32767).round().astype(np.int16)
    attributes(file)["POSITION"] = file.accessor(np.pad(shorts, ((0, 0), (0, 1)))[:, :3].copy(), normalized=True)
    file.node["scale"] = [0.8, 0.8, 0.8]


def bytes_of_indices(file: GltfFile) -> None:
    file.primitive["indices"] = file.accessor(box()[3].reshape(-1).astype(np.uint8))


def without_indices(file: GltfFile) -> None:
    order = box()[3].reshape(-1)
    for name, values in zip(("POSITION", "NORMAL", "TEXCOORD_0"), box()[:3], strict=True):
        attributes(file)[name] = file.accessor(values[order])
    del file.primitive["indices"]


def strip(file: GltfFile) -> None:
    """Each side of the box as a strip of its own, joined by corners that say themselves twice."""
    runs = [[start, start + 1, start + 3, start + 2] for start in range(0, 24, 4)]
    joined = [corner for run in runs for corner in (run[0], *run, run[-1])]
    file.primitive.update(mode=5, indices=file.accessor(np.array(joined, np.uint16)))


def sparse(file: GltfFile) -> None:
    positions = box()[0]
    wrong = positions.copy()
    wrong[7] = 99
    entry = file.accessor(wrong)
    file.document["accessors"][entry]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": file.view(np.array([7], np.uint16).tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(positions[7].tobytes())},
    }
    attributes(file)["POSITION"] = entry


def instanced(file: GltfFile) -> None:
    shifts = file.accessor(np.array([[0, 0, 0], [1.6, 0, 0]], np.float32))
    file.node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": shifts}}}


def nested(file: GltfFile) -> None:
    """The box in a node of a node, half the size and twice again."""
    file.document["nodes"] = [{"children": [1], "scale": [2, 2, 2]}, {"mesh": 0, "scale": [0.5, 0.5, 0.5]}]


def circle(file: GltfFile) -> None:
    file.document["nodes"] = [{"mesh": 0, "children": [1]}, {"children": [0]}]


def second_scene(file: GltfFile) -> None:
    file.document |= {"scene": 1, "scenes": [{"nodes": []}, {"nodes": [0]}]}


def no_scene(file: GltfFile) -> None:
    del file.document["scene"], file.document["scenes"]


def skinned(file: GltfFile) -> None:
    """One joint that stands where it was bound."""
    attributes(file)["JOINTS_0"] = file.accessor(np.zeros((24, 4), np.uint8))
    attributes(file)["WEIGHTS_0"] = file.accessor(np.tile(np.array([[1, 0, 0, 0]], np.float32), (24, 1)))
    file.document["nodes"] = [{"mesh": 0, "skin": 0}, {}]
    file.document |= {"skins": [{"joints": [1]}], "scenes": [{"nodes": [0, 1]}]}


def without(name: str) -> Change:
    def change(file: GltfFile) -> None:
        del attributes(file)[name]

    return change


def normals(factor: float) -> Change:
    """Normals that are wrong."""

    def change(file: GltfFile) -> None:
        attributes(file)["NORMAL"] = file.accessor((box()[1] * factor).astype(np.float32))

    return change


def twice(*, turned: bool) -> Change:
    """The faces turned inward, or in place and turned."""

    def change(file: GltfFile) -> None:
        faces = box()[3]
        found = faces[:, ::-1] if turned else np.concatenate([faces, faces[:, ::-1]])
        file.primitive["indices"] = file.accessor(np.ascontiguousarray(found).reshape(-1))

    return change


def one_side(file: GltfFile) -> None:
    file.primitive["indices"] = file.accessor(box()[3][8:10].reshape(-1))


def of_mode(mode: int) -> Change:
    return lambda file: file.primitive.update(mode=mode)


def empty(file: GltfFile) -> None:
    file.document |= {"scenes": [{"nodes": []}], "nodes": [], "meshes": []}


def unreferenced(file: GltfFile) -> None:
    file.document["scenes"] = [{"nodes": []}]


def elsewhere(what: str) -> Change:
    def change(file: GltfFile) -> None:
        if what == "buffer":
            file.document["buffers"] = [{"byteLength": len(file.data), "uri": "ext.bin"}]
        else:
            file.document["images"][0] = {"uri": "atlas.png"}

    return change


def not_finite(file: GltfFile) -> None:
    positions = box()[0].copy()
    positions[0, 0] = np.nan
    attributes(file)["POSITION"] = file.accessor(positions)


def wrong_types(file: GltfFile) -> None:
    file.document["meshes"] = ["box"]


def far(file: GltfFile) -> None:
    attributes(file)["POSITION"] = file.accessor(box()[0] + np.float32(1000))


READ: dict[str, tuple[Change, tuple[float, float, float], tuple[int, ...] | None, str]] = {
    # kind: change, size in the world, colour at a corner, what is said
    "texture": (lambda file: None, SIZE, COLORS[2], ""),
    "alpha mask": (looks(alphaMode="MASK"), SIZE, COLORS[2], "partly transparent"),
    "emission alone": (only_glows, SIZE, COLORS[2], "only glows"),
    "factor alone": (factor_alone, SIZE, RED, ""),
    "vertex colours": (vertex_colours, SIZE, RED, ""),
    "vertex colours times a white texture": (colours_and_white, SIZE, RED, ""),
    "texture transform": (moved_coordinates, SIZE, COLORS[2], ""),
    "texture without coordinates": (without("TEXCOORD_0"), SIZE, None, "no texture coordinates"),
    "texture, 1 bit": (picture("1", "PNG"), SIZE, None, ""),
    "texture, grey": (picture("L", "PNG"), SIZE, (58, 58, 58), ""),
    "texture, grey with alpha": (picture("LA", "PNG"), SIZE, (58, 58, 58), ""),
    "texture, palette": (picture("P", "PNG"), SIZE, None, ""),
    "texture, CMYK": (picture("CMYK", "JPEG"), SIZE, None, ""),
    "texture, WebP": (picture("RGB", "WEBP"), SIZE, None, ""),
    "texture, very large": (picture("RGB", "PNG", 4400), SIZE, None, "is worked with at 1/2"),
    "quantised": (quantised, SIZE, COLORS[2], ""),
    "indices of one byte": (bytes_of_indices, SIZE, COLORS[2], ""),
    "no indices": (without_indices, SIZE, COLORS[2], ""),
    "strip": (strip, SIZE, None, ""),
    "sparse": (sparse, SIZE, COLORS[2], ""),
    "instances": (instanced, (0.6, 2.6, 1.6), COLORS[2], ""),
    "nested nodes": (nested, SIZE, COLORS[2], ""),
    "nodes in a circle": (circle, SIZE, COLORS[2], ""),
    "second scene": (second_scene, SIZE, COLORS[2], ""),
    "no scene": (no_scene, SIZE, COLORS[2], ""),
    "skin": (skinned, SIZE, COLORS[2], "rigged"),
    "far node": (placed(translation=[1e6, 0, 0]), SIZE, COLORS[2], ""),
    "far vertices": (far, SIZE, COLORS[2], ""),
    "uneven scale": (placed(scale=[2, 1, 1]), (0.6, 2.0, 1.6), COLORS[2], ""),
    "mirrored": (placed(scale=[-1, 1, 1]), SIZE, None, ""),
    "flat scale": (placed(scale=[1, 1, 0]), (0.0, 1.0, 1.6), COLORS[2], ""),
    "tiny scale": (placed(scale=[1e-9] * 3), (0.6e-9, 1e-9, 1.6e-9), COLORS[2], ""),
    "huge scale": (placed(scale=[1e20] * 3), (0.6e20, 1e20, 1.6e20), COLORS[2], ""),
    "scale beyond float32": (placed(scale=[1e39] * 3), (0.6e39, 1e39, 1.6e39), COLORS[2], ""),
    "no normals": (without("NORMAL"), SIZE, COLORS[2], ""),
    "normals of length 0": (normals(0), SIZE, COLORS[2], ""),
    "normals turned inward": (normals(-1), SIZE, COLORS[2], ""),
    "faces turned inward": (twice(turned=True), SIZE, None, ""),
    "faces twice": (twice(turned=False), SIZE, COLORS[2], ""),
    "one side": (one_side, (0.0, 1.0, 1.6), None, ""),
}

REFUSED: dict[str, Change] = {
    "Draco": lambda file: file.require("KHR_draco_mesh_compression"),
    "KTX2": lambda file: file.require("KHR_texture_basisu"),
    "empty scene": empty,
    "meshes outside the scene": unreferenced,
    "missing buffer": elsewhere("buffer"),
    "missing picture": elsewhere("picture"),
    "points": of_mode(0),
    "lines": of_mode(1),
    "NaN": not_finite,
    "values of wrong types": wrong_types,
}

BYTES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) // 2],
    "another file by that name": lambda content: json.dumps({"asset": {"version": "2.0"}}).encode(),
    "no bytes": lambda content: b"",
    "version 1": lambda content: content[:4] + (1).to_bytes(4, "little") + content[8:],
}

HEAD = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
CORNERS = ("0 0 0", "1 0 0", "0 1 0")
PLACES = "".join(f"{corner}\n" for corner in CORNERS)
FACE = "element face 1\nproperty list uchar int vertex_indices\n"


def ply(kind: str, values: str, names: str = "red green blue") -> str:
    """A PLY of a triangle with vertices of one colour and a last one of none."""
    own = "".join(f"property {kind} {name}\n" for name in names.split())
    rows = "".join(f"{corner} {color}\n" for corner, color in zip(CORNERS, (values, values, "0 0 0"), strict=True))
    return f"{HEAD}{own}{FACE}end_header\n{rows}3 0 1 2\n"


PLAIN_READ: dict[str, tuple[str, bytes, tuple[int, ...] | None, str]] = {
    # kind: ending, content, colour at the first vertex, what is said
    "PLY, colours in bytes": ("ply", ply("uchar", "255 0 0").encode(), RED, ""),
    "PLY, colours in 16 bits": ("ply", ply("ushort", "65535 0 0").encode(), RED, ""),
    "PLY, colours as fractions": ("ply", ply("float", "1 0 0").encode(), RED, ""),
    "PLY, diffuse colours": ("ply", ply("uchar", "255 0 0", "diffuse_red diffuse_green diffuse_blue").encode(), RED, ""),
    "PLY, colours of faces": (
        "ply",
        f"{HEAD}{FACE}property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n{PLACES}3 0 1 2 255 0 0\n".encode(),
        None,
        "colours of faces, which are not read",
    ),
    "OFF, colours of vertices": (
        "off",
        b"COFF\n3 1 0\n0 0 0 255 0 0 255\n1 0 0 255 0 0 255\n0 1 0 0 0 0 255\n3 0 1 2\n",
        RED,
        "",
    ),
    "OFF, colours of faces": (
        "off",
        b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2 255 0 0\n",
        None,
        "colours of faces, which are not read",
    ),
    "OBJ in UTF-16": ("obj", "v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 0 0 0\nf 1 2 3\n".encode("utf-16"), RED, ""),
    "OBJ, colours in 0..255": ("obj", b"v 0 0 0 255 0 0\nv 1 0 0 255 0 0\nv 0 1 0 0 0 0\nf 1 2 3\n", RED, ""),
}

PLAIN_REFUSED: dict[str, tuple[str, bytes]] = {
    "PLY, only points": ("ply", f"{HEAD}end_header\n0 0 0\n1 0 0\n0 1 0\n".encode()),
    "OBJ, a face that names no vertex": ("obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n"),
}


def size_of(found: ReadMesh) -> np.ndarray:
    return np.ptp(found.vertices[found.mesh.faces.unique().numpy()], axis=0)


def color_of(found: ReadMesh, shares: tuple[float, float, float]) -> tuple[int, ...]:
    color = colors_at(found.mesh, torch.tensor([0]), torch.tensor([shares]))[0]
    return tuple((color * 255).round().int().tolist())


@pytest.mark.parametrize("kind", READ)
def test_a_gltf_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    change, size, color, said = READ[kind]
    file = textured_box()
    change(file)
    found = read_mesh(file.write(tmp_path / "box.glb"))
    np.testing.assert_allclose(size_of(found), size, rtol=1e-4, atol=1e-4 * max(size))
    if color is not None:
        assert np.abs(np.array(color_of(found, (0.9, 0.05, 0.05))) - color).max() <= 1
    assert any(said in note for note in found.notes) if said else found.notes == ()
    keep_mesh(tmp_path / "store", tmp_path / "box.glb", "")


@pytest.mark.parametrize("kind", PLAIN_READ)
def test_another_format_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    ending, content, color, said = PLAIN_READ[kind]
    path = tmp_path / f"triangle.{ending}"
    path.write_bytes(content)
    found = read_mesh(path)
    assert len(found.mesh.faces) == 1
    assert sorted(size_of(found).tolist()) == pytest.approx([0, 1, 1])
    if color is not None:
        assert color_of(found, (1.0, 0.0, 0.0)) == color
    assert any(said in note for note in found.notes) if said else found.notes == ()
    assert keep_mesh(tmp_path / "store", path, "").has_colors == (color is not None)


def lines() -> dict[str, str]:
    """Of each refused kind of the page, what it is refused with."""
    return {
        kind: cells[2].removeprefix("refused: ").strip() for kind, cells in rows().items() if cells[2].startswith("refused")
    }


def rows() -> dict[str, list[str]]:
    """The page's table: kind, what it holds, what comes out."""
    text = (PROJECT / "docs" / "using" / "meshes.md").read_text()
    cells = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {each[0]: each for each in cells if len(each) == 3 and each[0] != "kind"}


def test_the_page_names_every_kind_and_no_other() -> None:
    made = [*READ, *REFUSED, *BYTES, *PLAIN_READ, *PLAIN_REFUSED]
    assert sorted(rows()) == sorted(made)
    assert sorted(lines()) == sorted([*REFUSED, *BYTES, *PLAIN_REFUSED])


@pytest.mark.parametrize("kind", [*REFUSED, *BYTES, *PLAIN_REFUSED])
def test_what_cannot_be_read_is_refused_at_the_door_with_the_pages_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "box.glb"
    if kind in PLAIN_REFUSED:
        ending, content = PLAIN_REFUSED[kind]
        path = tmp_path / f"triangle.{ending}"
        path.write_bytes(content)
    else:
        file = textured_box()
        REFUSED.get(kind, lambda file: None)(file)
        path.write_bytes(BYTES.get(kind, lambda content: content)(file.glb()))
    with pytest.raises(ConfigError) as caught:
        keep_mesh(tmp_path / "store", path, "")
    said = str(caught.value)
    assert re.sub(r"[\d,]+", "N", lines()[kind]) == re.sub(r"[\d,]+", "N", said.replace(path.name, "FILE")), said
    assert not (tmp_path / "store").exists()
