"""Reading a file that somebody else made, or that such a file names: regular ones alone, of bounded size, from the same folder alone."""

import os
import re
import stat
from pathlib import Path

MESH_BYTES = 256 * 2**20
"""Of a mesh's own file."""
MATERIAL_BYTES = 4 * 2**20
"""Of a material library."""
PICTURE_BYTES = 50 * 2**20
"""Of a picture's file."""
TEXT_BYTES = 2**20
"""Of a document that people write: a study, a list of prompts, an attribution."""


class RefusedError(ValueError):
    """A file is not read, since it asks for too much or points elsewhere; the message is one line."""


def read_regular(path: Path, most_bytes: int) -> bytes:
    """A file's content. Does not wait for pipes, nor read devices.

    Raises RefusedError for what is no regular file or too large, OSError for what is not there or cannot be read.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise RefusedError(f"{path} is no file, but a folder, pipe or device")
        if found.st_size > most_bytes:
            raise RefusedError(f"{path} has {mebibytes(found.st_size)}, the limit is {mebibytes(most_bytes)}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(most_bytes + 1)
    finally:
        os.close(handle)
    if len(content) > most_bytes:
        raise RefusedError(f"{path} grows while it is read")
    return content


def mebibytes(count: int) -> str:
    """A size in words."""
    return f"{count / 2**20:,.3g} MiB" if count < 1000 * 2**20 else f"{count / 2**30:,.3g} GiB"


def inner_name(name: str) -> str:
    """A file's name as another file in the same folder or archive gives it, with plain slashes and without `./`.

    Raises RefusedError for an absolute one, an address, or one with `..`.
    """
    parts = name.replace("\\", "/").split("/")
    address = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name) is not None
    if address or not parts[0] or ".." in parts or "\0" in name:
        raise RefusedError(f"it names {name[:100]!r}, which lies outside its folder; put the file beside it")
    return "/".join(part for part in parts if part not in ("", "."))


def beside(folder: Path, name: str) -> Path:
    """Where the file lies that another file of a folder names. Raises RefusedError for one outside, also by a link."""
    path = folder / inner_name(name)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise RefusedError(f"it names {name[:100]!r}, a link that leads out of its folder; put the file beside it")
    return path
