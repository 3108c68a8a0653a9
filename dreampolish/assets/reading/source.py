"""A mesh file and the files that it names, gathered from its folder into memory, and kept as one archive."""

import io
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from dreampolish.assets.reading.scene import MeshError

FORMATS = ("glb", "gltf", "obj", "ply", "stl", "off", "usd", "usda", "usdc", "usdz")
MAX_BYTES = 1 << 30
"""Of a mesh file with all that it names, at most."""
_MAIN = "MESH"
"""Member of an archive that holds the name of the mesh file."""


@dataclass
class MeshFiles:
    """A mesh file's name and content, and the files beside it that were named so far, by the names used.

    folder: where further files are looked for; None for an archive, which holds all of them.
    """

    name: str
    content: bytes
    folder: Path | None
    beside: dict[str, bytes] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The format, by the ending."""
        return self.name.rpartition(".")[2].lower()

    def named(self, reference: str) -> bytes:
        """The content of a file that the mesh names by a path relative to its own.

        Raises MeshError for one that is missing, is no file, or lies outside the mesh's folder.
        """
        key = checked_reference(reference, self.name)
        if key not in self.beside:
            if self.folder is None:
                raise MeshError(f"{self.name} names {reference}, which is missing")
            self.beside[key] = _read(self.folder / key, self.name, MAX_BYTES - self.size())
        return self.beside[key]

    def size(self) -> int:
        """Bytes of all that is held."""
        return len(self.content) + sum(len(content) for content in self.beside.values())


def checked_reference(reference: str, name: str) -> str:
    """A reference of a mesh file as a plain path below its folder. Raises MeshError for one that leaves the folder."""
    if reference.startswith(("http:", "https:", "file:")):
        raise MeshError(f"{name} names {reference[:80]}: files are read from its own folder only; put it there")
    plain = PurePosixPath(unquote(reference.replace("\\", "/")))
    parts = [part for part in plain.parts if part != "."]
    if not parts or plain.is_absolute() or ".." in parts or ":" in parts[0] or "\0" in reference:
        raise MeshError(f"{name} names {reference[:80]}, which lies outside its folder; put it beside the mesh")
    return "/".join(parts)


def open_mesh_file(path: Path) -> MeshFiles:
    """A mesh file from a user's disk; what it names is read when the reader asks for it. Raises MeshError.

    An archive that a store keeps is opened as the mesh that it holds.
    """
    kind = path.suffix.lower().lstrip(".")
    if not kind and path.is_file() and zipfile.is_zipfile(path):
        return open_archive(path)
    if kind not in FORMATS:
        raise MeshError(f"{path.name} ends in none of {', '.join('.' + entry for entry in FORMATS)}")
    return MeshFiles(path.name, _read(path, path.name, MAX_BYTES), path.parent)


def _read(path: Path, name: str, room: int) -> bytes:
    """A regular file of at most `room` bytes; links that lead out of the folder are followed only for the mesh itself."""
    what = name if path.name == name else f"{path.name}, which {name} names,"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise MeshError(f"{what} is missing") from None
    except OSError as error:
        raise MeshError(f"{what} cannot be read: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise MeshError(f"{what} is no file")
        if facts.st_size > room:
            raise MeshError(
                f"{what} has {facts.st_size / 2**20:,.0f} MiB; a mesh may have {MAX_BYTES >> 20:,} MiB with its files"
            )
        return file.read(room + 1)


def archive_bytes(files: MeshFiles) -> bytes:
    """The mesh and all that was read beside it as one uncompressed archive, the same bytes for the same content."""
    stream = io.BytesIO()
    members: Mapping[str, bytes] = {_MAIN: files.name.encode(), f"mesh/{files.name}": files.content} | {
        f"mesh/{name}": content for name, content in sorted(files.beside.items())
    }
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return stream.getvalue()


def open_archive(path: Path) -> MeshFiles:
    """What `archive_bytes` made. Raises MeshError for another archive."""
    with zipfile.ZipFile(path) as archive:
        if _MAIN not in archive.namelist() or sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise MeshError(f"{path.name} is no archive of a mesh; name the mesh file itself")
        name = archive.read(_MAIN).decode()
        members = {entry.removeprefix("mesh/"): archive.read(entry) for entry in archive.namelist() if entry != _MAIN}
    return MeshFiles(name, members.pop(name), None, members)
