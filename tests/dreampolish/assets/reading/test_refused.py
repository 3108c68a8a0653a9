"""glTF files that cannot be read as they are: each refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dreampolish.assets.reading.read import read_mesh
from dreampolish.assets.reading.scene import MAX_TRIANGLES, MeshError
from tests.support.gltf_files import GltfFile, box, textured_box


def _draco(file: GltfFile) -> None:
    file.require("KHR_draco_mesh_compression")


def _unknown(file: GltfFile) -> None:
    file.require("ACME_secret_sauce")


def _basis(file: GltfFile) -> None:
    file.require("KHR_texture_basisu")


def _ktx2(file: GltfFile) -> None:
    file.document["images"][0]["bufferView"] = file.view(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(80))


def _missing_picture(file: GltfFile) -> None:
    file.document["images"][0] = {"uri": "atlas.png"}


def _outside(file: GltfFile) -> None:
    file.document["images"][0] = {"uri": "../../secret.png"}


def _absolute(file: GltfFile) -> None:
    file.document["images"][0] = {"uri": "/etc/hostname"}


def _not_finite(file: GltfFile) -> None:
    positions = box()[0].copy()
    positions[5, 1] = np.nan
    file.primitive["attributes"]["POSITION"] = file.accessor(positions)


def _claims_24_gib(file: GltfFile) -> None:
    file.document["accessors"][0]["count"] = 2 * 2**30


def _claims_without_data(file: GltfFile) -> None:
    accessor = file.document["accessors"][0]
    del accessor["bufferView"]
    accessor["count"] = 2 * 2**30


def _past_the_end(file: GltfFile) -> None:
    file.document["bufferViews"][0]["byteLength"] = 10**12


def _ten_million_triangles(file: GltfFile) -> None:
    file.document["accessors"][file.primitive["indices"]]["count"] = 30_000_000


def _many_instances(file: GltfFile) -> None:
    attributes = {"TRANSLATION": file.accessor(np.zeros((200_000, 3), np.float32))}
    file.node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}


def _instances_of_many_triangles(file: GltfFile) -> None:
    attributes = {"TRANSLATION": file.accessor(np.zeros((15_000, 3), np.float32))}
    file.node["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    file.primitive["indices"] = file.accessor(np.zeros(3 * 200, np.uint16))


def _points(file: GltfFile) -> None:
    file.primitive["mode"] = 0


def _empty(file: GltfFile) -> None:
    file.document["nodes"] = [{}]


def _face_past_the_vertices(file: GltfFile) -> None:
    file.primitive["indices"] = file.accessor(np.array([0, 1, 24], np.uint16))


def _no_extent(file: GltfFile) -> None:
    file.node["scale"] = [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_draco, "without Draco"),
        (_unknown, "requires ACME_secret_sauce"),
        (_basis, "PNG or JPEG"),
        (_ktx2, "KTX2"),
        (_missing_picture, "atlas.png, which box.glb names, is missing"),
        (_outside, "outside its folder"),
        (_absolute, "outside its folder"),
        (_not_finite, "not finite"),
        (_claims_24_gib, "claims"),
        (_claims_without_data, "claims an accessor"),
        (_past_the_end, "claims"),
        (_ten_million_triangles, f"at most {MAX_TRIANGLES:,} fit"),
        (_many_instances, "places"),
        (_instances_of_many_triangles, f"at most {MAX_TRIANGLES:,} fit"),
        (_points, "only points"),
        (_empty, "not part of the scene"),
        (_face_past_the_vertices, "names vertex 24 of 24"),
        (_no_extent, "no extent"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, change: Callable[[GltfFile], None], words: str) -> None:
    file = textured_box()
    change(file)
    with pytest.raises(MeshError) as caught:
        read_mesh(file.write(tmp_path / "box.glb"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
