"""Files are written whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from dreampolish.optim.atomic_files import partial_path, sha256_of, write_atomically


def test_a_file_takes_its_new_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    for content in (b"old", b"the new one"):
        write_atomically(path, content)
        assert path.read_bytes() == content
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, b"old")

    def failing(*arguments: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(*((os, "fsync") if operation == "fsync" else (Path, "replace")), failing)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unfinished_file_is_hidden_and_named_after_its_process(tmp_path: Path) -> None:
    assert partial_path(tmp_path / "a.json").name == f".a.json.{os.getpid()}.partial"
