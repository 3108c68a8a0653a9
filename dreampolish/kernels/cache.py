"""The folder for what is worth keeping from one process to the next and can be made anew: compiled kernels above all."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

CACHE_VARIABLE = "DREAMPOLISH_CACHE"
"""Environment variable that names another folder than the user's cache."""


def cache_folder() -> Path:
    """The folder: in `DREAMPOLISH_CACHE`, else the user's cache folder, else, where that cannot be written, in a
    temporary folder that only this user can read and that ends with the process.
    """
    named = os.environ.get(CACHE_VARIABLE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "dreampolish"
    folder = Path(named) if named else base
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.absolute()
    except OSError:
        private = tempfile.mkdtemp(prefix="dreampolish-")
        atexit.register(shutil.rmtree, private, ignore_errors=True)
        return Path(private)
