"""trimesh's access to the files that a mesh names: material libraries and pictures in the mesh's own folder."""

from collections.abc import Iterable
from io import UnsupportedOperation
from pathlib import Path
from typing import NoReturn

from trimesh.resolvers import Resolver

from dreampolish.scene.untrusted.files import MATERIAL_BYTES, PICTURE_BYTES, RefusedError, beside, inner_name, read_regular
from dreampolish.scene.untrusted.images import PICTURE_SIDE, checked_size

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class BesideResolver(Resolver):  # type: ignore[misc]  # trimesh has no types
    """Gives what lies in a folder and keeps to its bounds. refused: one line for each file that was not given.

    trimesh reads a mesh without what it does not get, so a reader asks `refused` after it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refused: list[str] = []

    def get(self, key: str) -> bytes:
        """The content of a file. Raises RefusedError, which is noted, and OSError."""
        try:
            path = beside(self.folder, key.strip())
            is_picture = path.suffix.lower() in PICTURES
            content = read_regular(path, PICTURE_BYTES if is_picture else MATERIAL_BYTES)
            if is_picture:
                checked_size(content, PICTURE_SIDE, path.name)
            return content
        except RefusedError as error:
            self.refused.append(str(error))
            raise

    def namespaced(self, namespace: str) -> "BesideResolver":
        """The same for a folder inside."""
        return BesideResolver(self.folder / inner_name(namespace))

    def keys(self) -> Iterable[str]:
        """The names of the folder's files."""
        return [path.name for path in self.folder.iterdir() if path.is_file()]

    def write(self, name: str, data: object) -> NoReturn:
        """Nothing is written."""
        raise UnsupportedOperation("a mesh's folder is read only")
