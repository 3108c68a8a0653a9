"""Who may read what: the store is its owner's alone, outputs are as the user's umask says."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.files import PROJECT, USERS_UMASK, close_store, for_the_user, keep_private, modified_at, newest_first

INSIDE = """
import os, sys
from pathlib import Path
os.umask(0o027)
from stages.runtime.files import for_the_user, keep_private
keep_private()
keep_private()
Path("store").mkdir()
Path("store/log").touch()
with for_the_user():
    Path("outputs").mkdir()
    Path("outputs/asset.glb").touch()
Path("store/after").touch()
os.system(f"{sys.executable} -c 'open(\\"store/child\\", \\"w\\")'")
"""


def modes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in sorted(folder.rglob("*"))}


def test_files_of_the_store_are_private_and_outputs_are_the_users(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != USERS_UMASK}
    subprocess.run([sys.executable, "-c", INSIDE], cwd=tmp_path, env={**environment, "PYTHONPATH": str(PROJECT)}, check=True)
    assert modes(tmp_path) == {
        "store": 0o700,
        "store/log": 0o600,
        "store/after": 0o600,
        "store/child": 0o600,
        "outputs": 0o750,
        "outputs/asset.glb": 0o640,
    }


def test_a_store_left_open_is_closed_and_other_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "store" / "runs").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for name, closed in (("store", True), ("other", False), ("absent", False)):
        folder = tmp_path / name
        if folder.exists():
            folder.chmod(0o755)
        close_store(folder)
        assert not folder.exists() or (stat.S_IMODE(folder.stat().st_mode) == 0o700) == closed


def test_without_a_command_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(USERS_UMASK, raising=False)
    before = os.umask(0o022)
    try:
        with for_the_user():
            assert os.umask(0o022) == 0o022
        keep_private()
        with for_the_user():
            assert os.umask(0o022) == 0o022
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(before)
        os.environ.pop(USERS_UMASK, None)


def test_the_newest_come_first_and_what_was_removed_is_left_out(tmp_path: Path) -> None:
    old, new, gone = (tmp_path / name for name in ("old", "new", "gone"))
    for path, seconds in ((old, 100), (new, 200)):
        path.touch()
        os.utime(path, (seconds, seconds))
    assert newest_first([old, gone, new]) == [new, old]
    assert (modified_at(old), modified_at(gone)) == (100.0, None)
