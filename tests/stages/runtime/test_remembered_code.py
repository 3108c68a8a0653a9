"""The code behind a stage is looked up where it was noted, and only for the very sources that it was noted of."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.runtime.files import PROJECT
from stages.runtime.keys import notes as notes_module
from stages.runtime.keys import remembered
from stages.runtime.keys.code import code_of

STAGE = ("stages.reference", "make_reference")


@pytest.fixture(autouse=True)
def a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DREAMPOLISH_CACHE", str(tmp_path / "cache"))
    forget()
    yield
    forget()


def forget() -> None:
    remembered._known_code.cache_clear()
    remembered.sources_digest.cache_clear()


def notes(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "code").glob("*.json"))


def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that were walked from now on."""
    found: list[str] = []
    real = code_of

    def counted(module: str, function: str, root: Path, ends: tuple[str, ...]) -> object:
        found.append(function)
        return real(module, function, root, ends)

    monkeypatch.setattr(remembered, "code_of", counted)
    return found


def test_a_second_process_reads_what_the_first_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = walked(monkeypatch)
    first = remembered.known_code(*STAGE)
    forget()
    assert remembered.known_code(*STAGE) == first == code_of(*STAGE, PROJECT)
    assert found == [STAGE[1]]
    assert len(notes(tmp_path)) == 1


def test_a_damaged_note_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = remembered.known_code(*STAGE)
    for damage in (b"", b"[]", b'{"digest": "0"}', b"\xff"):
        notes(tmp_path)[0].write_bytes(damage)
        forget()
        assert remembered.known_code(*STAGE) == first
        assert len(notes(tmp_path)[0].read_bytes()) > 100


def test_other_sources_have_other_notes(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    source = tmp_path / "stages" / "nerf.py"
    digests = set()
    for text in ("STEPS = 1\n", "STEPS = 2\n"):
        source.write_text(text)
        forget()
        digests.add(remembered.sources_digest(tmp_path))
    source.rename(tmp_path / "stages" / "neus.py")
    forget()
    assert len(digests | {remembered.sources_digest(tmp_path)}) == 3


def test_without_a_place_to_write_it_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "code").write_text("in the way")
    assert remembered.known_code(*STAGE) == code_of(*STAGE, PROJECT)


def test_old_notes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes_module, "KEPT", 2)
    for ends in (("stages.runtime",), ("stages.results",), ()):
        remembered.known_code(*STAGE, ends=ends)
    assert len(notes(tmp_path)) == 2
