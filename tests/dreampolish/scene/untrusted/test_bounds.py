"""Files from strangers: each of these asks for too much or points elsewhere, and is refused in one line, in little time and memory."""

import json
import os
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreampolish.assets.findings import FileFindings
from dreampolish.assets.validate import findings_of
from dreampolish.assets.writing.glb import read_glb
from dreampolish.scene.pictures import PictureError, read_picture
from dreampolish.scene.untrusted.files import RefusedError, beside, inner_name, read_regular

OUTSIDE = [
    "/etc/passwd",
    "../up.mtl",
    "a/../../up.mtl",
    "..\\up.mtl",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x",
    "C:/x",
    "",
    "\0",
]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Each test takes at most 20 s of this process's time and 600 MiB more of memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, extra: bytes = b"") -> bytes:
    """A grey PNG with a true header; its rows are there for the first 64 only."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 + side) * min(side, 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def inflating(kind: bytes) -> bytes:
    """A chunk that unpacks to 64 MiB."""
    return chunk(kind, b"k\0\0" + zlib.compress(b"A" * (64 << 20), 9))


Triangle = tuple[dict[str, Any], bytes]


def triangle(picture: bytes = b"") -> Triangle:
    """A sound document of one textured triangle and its bytes."""
    parts = [
        struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0),
        struct.pack("<6f", 0, 0, 1, 0, 0, 1),
        struct.pack("<4H", 0, 1, 2, 0),
    ]
    parts += [picture] if picture else []
    views, place = [], 0
    for part in parts:
        views.append({"buffer": 0, "byteOffset": place, "byteLength": len(part)})
        place += len(part)
    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]},
            {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 3, "type": "SCALAR"},
        ],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}] if picture else [{}],
        "bufferViews": views,
        "buffers": [{"byteLength": place}],
    }
    if picture:
        document |= {"textures": [{"source": 0}], "images": [{"bufferView": 3, "mimeType": "image/png"}]}
    return document, b"".join(parts)


def packed(document: dict[str, Any] | bytes, binary: bytes) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def test_the_sound_triangle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(packed(*triangle(png(64))))
    assert findings_of(path) == FileFindings("trimesh's glTF schema", figures={"triangles": 1.0})
    assert len(read_glb(path).faces) == 1


def chained(document: dict[str, Any], length: int) -> None:
    document["nodes"] = [{"children": [each + 1]} for each in range(length)] + [{"mesh": 0}]


GLB_CASES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda d: d["accessors"][0].update(count=2**32 - 1), "accessor 0 wants"),
    (lambda d: d["accessors"][0].update(count=-5), "accessor 0 has -5 elements"),
    (lambda d: (d["accessors"][0].pop("bufferView"), d["accessors"][0].update(count=2**31)), "that the file does not hold"),
    (lambda d: d["accessors"][0].update(sparse={"count": 2**31}), "accessor 0 replaces"),
    (lambda d: d["accessors"][0].update(byteOffset=2**40), "accessor 0 wants"),
    (lambda d: d["buffers"][0].update(byteLength=2**32 - 1), "buffer 0 is said to have"),
    (lambda d: d["bufferViews"][0].update(byteLength=10**9), "bufferView 0 ends at byte"),
    (lambda d: d["buffers"][0].update(uri="../x.bin"), "buffers[0] names"),
    (lambda d: d.update(images=[{"uri": "file:///etc/passwd"}]), "images[0] names"),
    (lambda d: d.update(images=[{"uri": "data:image/png;base64,AAAA"}]), "no PNG, JPEG or WebP"),
    (lambda d: d.update(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]), "in a circle"),
    (lambda d: d.update(nodes=[{"children": [2]}, {"children": [2]}, {"mesh": 0}]), "stands under two nodes"),
    (lambda d: chained(d, 101), "more than 100 deep"),
    (lambda d: d.update(nodes=[{"mesh": 0}] * 10_001), "the limit is 10000"),
]


@pytest.mark.parametrize(("damage", "why"), GLB_CASES)
def test_a_glb_that_claims_what_it_does_not_hold_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], object], why: str
) -> None:
    document, binary = triangle()
    damage(document)
    path = tmp_path / "a.glb"
    path.write_bytes(packed(document, binary))
    (error,) = findings_of(path).errors
    assert error.startswith("refused: ")
    assert why in error
    with pytest.raises(ValueError, match=r"a\.glb is refused") as raised:
        read_glb(path)
    assert "\n" not in str(raised.value)


def test_more_triangles_than_a_machine_holds_are_refused(tmp_path: Path) -> None:
    document, binary = triangle()
    document["meshes"][0]["primitives"] *= 5_000
    document["nodes"] = [{"mesh": 0} for _ in range(5_000)]
    path = tmp_path / "a.glb"
    path.write_bytes(packed(document, binary))
    assert "places 25000000 triangles" in findings_of(path).errors[0]


def test_a_glb_of_deep_json_or_with_a_wrong_length_is_refused(tmp_path: Path) -> None:
    path, sound = tmp_path / "a.glb", packed(*triangle())
    for content, why in (
        (packed(b'{"asset":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""), "nested too deeply"),
        (sound[:12] + struct.pack("<I", 2**32 - 1) + sound[16:], "its JSON is said to have"),
        (packed(b"[]", b""), "no object"),
    ):
        path.write_bytes(content)
        assert why in findings_of(path).errors[0]


@pytest.mark.parametrize(
    ("picture", "why"),
    [
        (png(40_000), "more pixels than can be read"),
        (png(9_400), "the limit is 8192 a side"),
        (png(64, inflating(b"zTXt")), "too large"),
        (png(64, inflating(b"iCCP")), "too large"),
        (b"<svg/>", "no PNG, JPEG or WebP"),
    ],
)
def test_a_picture_that_grows_is_refused_alone_and_inside_a_glb(tmp_path: Path, picture: bytes, why: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture)
    with pytest.raises(PictureError, match=why.replace("8192", "4096")) as raised:
        read_picture(path)
    assert "\n" not in str(raised.value)
    glb = tmp_path / "a.glb"
    glb.write_bytes(packed(*triangle(picture)))
    assert why in findings_of(glb).errors[0]


OBJ = "mtllib {}\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl m\nf 1/1 2/2 3/3\n"


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.mtl", "/dev/zero", "/dev/stdin", "link.mtl"])
def test_an_obj_names_files_of_its_own_folder_alone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    (tmp_path / "up.mtl").write_text("newmtl m\n")
    (folder / "link.mtl").symlink_to(tmp_path / "up.mtl")
    (folder / "a.obj").write_text(OBJ.format(name))
    (error,) = findings_of(folder / "a.obj").errors
    assert error.startswith("refused: it names")
    (folder / "own.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    (folder / "a.obj").write_text(OBJ.format("own.mtl"))
    assert findings_of(folder / "a.obj").errors[0].startswith("refused: it names")


def test_a_pipe_and_a_bomb_beside_an_obj_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mtl")
    (tmp_path / "a.obj").write_text(OBJ.format("pipe.mtl"))
    assert "is no file, but a folder, pipe or device" in findings_of(tmp_path / "a.obj").errors[0]
    (tmp_path / "b.mtl").write_text("newmtl m\nmap_Kd bomb.png\n")
    (tmp_path / "bomb.png").write_bytes(png(40_000))
    (tmp_path / "a.obj").write_text(OBJ.format("b.mtl"))
    assert "more pixels" in findings_of(tmp_path / "a.obj").errors[0]


def package(path: Path, text: str) -> None:
    """A USDZ of one layer, aligned."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo("a.usda")
        padding = 64 - (30 + len(entry.filename)) % 64
        entry.extra = struct.pack("<HH", 0x1986, padding - 4) + b"\0" * (padding - 4)
        archive.writestr(entry, text)


LAYER = '#usda 1.0\n(defaultPrim = "a")\ndef Xform "a" {} {{\n{}\n}}\n'


@pytest.mark.parametrize(
    "layer",
    [
        LAYER.format("(references = @/etc/outside.usda@</b>)", ""),
        LAYER.format("(references = @../outside.usda@</b>)", ""),
        LAYER.format("(payload = @file:///etc/outside.usda@</b>)", ""),
        '#usda 1.0\n(subLayers = [@/etc/outside.usda@])\ndef Xform "a" {}\n',
        LAYER.format("", "asset inputs:file = @/etc/passwd@"),
    ],
)
def test_a_usdz_names_files_of_its_own_package_alone(tmp_path: Path, layer: str) -> None:
    path = tmp_path / "a.usdz"
    package(path, layer)
    (error,) = findings_of(path).errors
    assert "lies outside its folder" in error, error


def test_a_compressed_usdz_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.usdz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.usdc", b"\0" * (64 << 20))
    assert "is compressed" in findings_of(path).errors[0]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RefusedError):
        beside(tmp_path, name)


def test_names_inside_are_made_plain() -> None:
    assert [inner_name(name) for name in ("a.png", "./a.png", "maps\\a.png", "maps//./a.png")] == [
        *("a.png", "a.png", "maps/a.png", "maps/a.png")
    ]


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(RefusedError, match="the limit is"):
        read_regular(path, 4)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RefusedError, match="is no file"):
            read_regular(other, 5)
