"""Folders that cannot be used: one line that names the folder that matters."""

import errno
import os
from pathlib import Path

import pytest

from stages.runtime.errors import StageError
from stages.runtime.files import database_uri, disk_errors_in_one_line, free_space, try_folder

ELSEWHERE = "go elsewhere"


def told(path: Path) -> str:
    with pytest.raises(StageError) as caught:
        try_folder(path, ELSEWHERE)
    return str(caught.value)


def test_a_folder_that_can_be_used_is_made_and_left_empty(tmp_path: Path) -> None:
    try_folder(tmp_path / "a" / "b", ELSEWHERE)
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("below", [".", "deeper", "deeper/still"])
def test_a_file_in_a_folders_place_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    assert told(tmp_path / "file" / below).endswith(f"{tmp_path / 'file'} is no folder; move it away, or go elsewhere")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "asset.glb").mkdir()
    said = r"asset\.glb is a folder, and a file belongs there; move it away, or go elsewhere"
    with pytest.raises(StageError, match=said), disk_errors_in_one_line(tmp_path, ELSEWHERE):
        (tmp_path / "asset.glb").write_bytes(b"")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_of_a_closed_path_the_nearest_folder_is_named(tmp_path: Path, code: int) -> None:
    wanted = tmp_path / "closed" / "a" / "b"
    (tmp_path / "closed").mkdir()
    with pytest.raises(StageError) as caught, disk_errors_in_one_line(tmp_path, ELSEWHERE):
        raise OSError(code, os.strerror(code), str(wanted))
    said = f"cannot use {wanted}: {os.strerror(code)}; let your user read and write {tmp_path / 'closed'}, or go elsewhere"
    assert str(caught.value) == said


def test_a_full_disk_tells_the_room_that_is_left(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught, disk_errors_in_one_line(tmp_path / "not" / "there", ELSEWHERE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    told = f"cannot write {tmp_path / 'not' / 'there'}: No space left on device, {free_space(tmp_path)} free; make room or go elsewhere"
    assert str(caught.value) == told


def test_errors_of_other_things_are_no_disk_errors(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors_in_one_line(tmp_path, ELSEWHERE):
        raise PermissionError(errno.EPERM, "of a signal to another's process")
    with pytest.raises(FileNotFoundError), disk_errors_in_one_line(tmp_path, ELSEWHERE):
        (tmp_path / "absent").read_bytes()


def test_plain_paths_stay_readable_in_uris() -> None:
    assert database_uri(Path("/a/store/mlflow.db")) == "sqlite:////a/store/mlflow.db"
    assert database_uri(Path("/a?b/m.db")) == "sqlite+pysqlite:////a%3Fb/m.db"
    assert database_uri(Path("/100%/p.db"), "sqlite+aiosqlite") == "sqlite+aiosqlite:////100%25/p.db"
