"""A USDZ package before usd-core opens it: an uncompressed archive whose layers name files of the package alone."""

import struct
import zipfile
from pathlib import Path

from pxr import Tf, UsdUtils

from dreampolish.scene.untrusted.files import MESH_BYTES, RefusedError, inner_name, read_regular

ALIGNMENT = 64
ENTRIES = 2_000
LAYERS = (".usdc", ".usda", ".usd")
_LOCAL_HEADER = 30


def package_errors(path: Path) -> list[str]:
    """What is wrong with a package's form and references, one line each; layers are looked into only where the form is right.

    A USDZ is a ZIP without compression or encryption, its first file a USD layer, every file's bytes at a multiple of 64.
    """
    try:
        read_regular(path, MESH_BYTES)
        with zipfile.ZipFile(path) as archive:
            errors = _form_errors(path, archive)
            if errors:
                return errors
            damaged = archive.testzip()
            names = archive.namelist()
        return [f"{damaged} is damaged"] if damaged else _reference_errors(path, names)
    except RefusedError as error:
        return [str(error)]
    except (zipfile.BadZipFile, OSError, struct.error, RuntimeError) as error:
        return [f"is no readable ZIP: {error}"]


def _form_errors(path: Path, archive: zipfile.ZipFile) -> list[str]:
    entries = archive.infolist()
    if len(entries) > ENTRIES:
        return [f"holds {len(entries)} files, the limit is {ENTRIES}"]
    errors = [] if entries and entries[0].filename.endswith(LAYERS) else ["does not begin with a layer"]
    with path.open("rb") as file:
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                errors.append(f"{entry.filename} is compressed or encrypted")
            file.seek(entry.header_offset + _LOCAL_HEADER - 4)
            name, extra = struct.unpack("<HH", file.read(4))
            start = entry.header_offset + _LOCAL_HEADER + name + extra
            if start % ALIGNMENT:
                errors.append(f"{entry.filename} starts at byte {start}, no multiple of {ALIGNMENT}")
    return errors


def _reference_errors(path: Path, names: list[str]) -> list[str]:
    """Layers' references to what lies outside the package: usd-core would follow them."""
    errors = []
    for layer in (name for name in names if name.endswith(LAYERS)):
        try:
            listed = UsdUtils.ExtractExternalReferences(f"{path}[{layer}]")
        except Tf.ErrorException as error:
            errors.append(f"usd-core cannot open {layer}: {str(error).strip().splitlines()[-1]}")
            continue
        for name in (each for group in listed for each in group if each):
            try:
                inner_name(name)
            except RefusedError as error:
                errors.append(f"{layer}: {error}")
    return errors
