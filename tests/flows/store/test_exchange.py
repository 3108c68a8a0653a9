"""Runs to and from other places: whole or not at all, verified, going on where they stopped."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.store.exchange import pull, push
from stages.runtime.errors import StageError
from stages.runtime.records import read_record, record_name, record_path
from stages.runtime.shared.remote import FolderRemote, Remote, remote_at
from stages.runtime.shared.results import file_name, result_name, sealed
from stages.runtime.store import MANIFEST_HASH, LocalStore
from stages.runtime.tracking.files import folders_behind
from tests.support.damage import overwrite
from tests.support.stored_runs import published, stored_run


def quiet(_: str) -> None:
    return


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "s3":
        return remote_at(f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}")
    return remote_at(str(tmp_path / "place") if request.param == "folder" else f"memory://{tmp_path.name}")


def test_a_run_comes_back_whole_in_another_store(store: Path, tmp_path: Path, place: Remote) -> None:
    record = stored_run(store, "aaaaaaa1", picture=b"a picture")
    assert push(store, place, ["aaaaaaa1"], quiet).results == 2
    assert push(store, place, ["aaaaaaa1"], quiet).there == 2
    other = tmp_path / "other"
    moved = pull(other, place, ["aaaa"], quiet)
    assert (moved.runs, moved.results, moved.failed) == (1, 2, {})
    assert read_record(other, "aaaaaaa1") == record
    for name in ("nerf", "scores"):
        key = getattr(record.stages["nerf"], "fingerprint" if name == "nerf" else "scores")
        mine, theirs = store / name / key, other / name / key
        assert {path.name: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == {
            path.name: path.read_bytes() for path in theirs.rglob("*") if path.is_file()
        }
        assert {path.stat().st_mode & 0o777 for path in theirs.rglob("*") if path.is_file()} == {0o400}
        assert theirs.stat().st_mode & 0o777 == 0o700
    assert (other / "inputs" / str(record.image)).read_bytes() == b"a picture"
    assert (other / "journals/aaaaaaa1/run.jsonl").read_bytes() == (store / "journals/aaaaaaa1/run.jsonl").read_bytes()
    assert [path.name for path in folders_behind(other / "journals")] == ["aaaaaaa1"]
    assert pull(other, place, [], quiet).there == 2
    assert sorted(path.name for path in (other / "work").iterdir()) == []


def test_damage_and_missing_hashes_are_refused_and_nothing_comes(store: Path, tmp_path: Path) -> None:
    record = stored_run(store, "aaaaaaa1")
    place = FolderRemote(tmp_path / "place")
    push(store, place, ["aaaaaaa1"], quiet)
    key = record.stages["nerf"].fingerprint
    nerf, manifest = published(store, "aaaaaaa1"), place.root / result_name("nerf", key)
    file = place.root / file_name(nerf.field.sha256)
    whole = manifest.read_bytes()
    for damaged in (whole.partition(b"\n")[2], whole.replace(b'"steps": 1', b'"steps": 2'), b"", whole[:-1]):
        overwrite(manifest, damaged)
        assert "no hash, or differs" in pull(tmp_path / "other", place, [], quiet).failed["aaaaaaa1"]
    overwrite(manifest, sealed(whole.partition(b"\n")[2].replace(key.encode(), b"0" * 64)))
    assert "belongs to nerf/000000000000" in pull(tmp_path / "other", place, [], quiet).failed["aaaaaaa1"]
    overwrite(manifest, whole)
    content = file.read_bytes()
    overwrite(file, content[:-1] + b"?")
    assert "not what its hash says" in pull(tmp_path / "other", place, [], quiet).failed["aaaaaaa1"]
    file.unlink()
    assert "is missing" in pull(tmp_path / "other", place, [], quiet).failed["aaaaaaa1"]
    assert not LocalStore(tmp_path / "other").has("nerf", key)
    assert not record_path(tmp_path / "other", "aaaaaaa1").exists()
    overwrite(file, content)
    assert pull(tmp_path / "other", place, [], quiet).failed == {}


def test_a_damaged_local_result_is_not_sent(store: Path, tmp_path: Path) -> None:
    record, place = stored_run(store, "aaaaaaa1"), FolderRemote(tmp_path / "place")
    folder = store / "nerf" / record.stages["nerf"].fingerprint
    overwrite(folder / "parts/field.bin", b"x" * (folder / "parts/field.bin").stat().st_size)
    assert "differs from what was published" in push(store, place, ["aaaaaaa1"], quiet).failed["aaaaaaa1"]
    assert not place.exists(result_name("nerf", record.stages["nerf"].fingerprint))
    assert not place.exists(record_name("aaaaaaa1"))
    (folder / MANIFEST_HASH).unlink()
    assert "cannot be read" in push(store, place, ["aaaaaaa1"], quiet).failed["aaaaaaa1"]


def test_a_record_with_a_path_for_a_key_is_refused(store: Path, tmp_path: Path) -> None:
    stored_run(store, "aaaaaaa1")
    place = FolderRemote(tmp_path / "place")
    push(store, place, ["aaaaaaa1"], quiet)
    path = place.root / record_name("aaaaaaa1")
    record = json.loads(path.read_bytes().partition(b"\n")[2])
    record["stages"]["nerf"]["fingerprint"] = "../../outside"
    overwrite(path, sealed(json.dumps(record).encode()))
    assert "is no SHA-256" in pull(tmp_path / "other", place, [], quiet).failed["aaaaaaa1"]


class Cut(Exception):
    """A transfer is cut off."""


@pytest.mark.parametrize("call", range(1, 9))
def test_a_transfer_cut_off_anywhere_goes_on(store: Path, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    record = stored_run(store, "aaaaaaa1", picture=b"a picture")
    place, counts = FolderRemote(tmp_path / "place"), {"up": 0, "down": 0}

    def cutting(way: str, name: str) -> None:
        whole = getattr(FolderRemote, name)

        def counted(self: FolderRemote, *arguments: object) -> object:
            counts[way] += 1
            if counts[way] == call:
                raise Cut
            return whole(self, *arguments)

        monkeypatch.setattr(FolderRemote, name, counted)

    for way, name in (("up", "upload"), ("up", "create"), ("up", "write"), ("down", "download"), ("down", "read")):
        cutting(way, name)
    cut = 0
    for transfer, folder in ((push, store), (pull, tmp_path / "other")):
        try:
            transfer(folder, place, ["aaaaaaa1"], quiet)
        except Cut:
            cut += 1
            assert transfer is push or not record_path(folder, "aaaaaaa1").exists()
            assert transfer is pull or not place.exists(record_name("aaaaaaa1"))
            assert transfer(folder, place, ["aaaaaaa1"], quiet).failed == {}
    assert cut or call > 7
    assert read_record(tmp_path / "other", "aaaaaaa1") == record
    LocalStore(tmp_path / "other").open("nerf", record.stages["nerf"].fingerprint, type(published(store, "aaaaaaa1")))


def test_another_run_of_the_same_id_stays(store: Path, tmp_path: Path) -> None:
    place = FolderRemote(tmp_path / "place")
    stored_run(store, "aaaaaaa1")
    push(store, place, ["aaaaaaa1"], quiet)
    other = tmp_path / "other"
    mine = stored_run(other, "aaaaaaa1", shared="of another kind")
    assert "another run aaaaaaa1" in pull(other, place, [], quiet).failed["aaaaaaa1"]
    assert read_record(other, "aaaaaaa1").stages == mine.stages


def test_the_commands(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_run(store, "aaaaaaa1")
    stored_run(store, "bbbbbbb2")
    call, place = CliRunner().invoke, str(tmp_path / "place")
    assert call(app, ["store", "push", place]).exit_code == 2
    assert "2 runs sent: 4 results, 0 were there already" in call(app, ["store", "push", place, "--all"]).stdout
    monkeypatch.setenv("DREAMPOLISH_STORE", str(tmp_path / "other"))
    assert "1 runs fetched: 2 results" in call(app, ["store", "pull", place, "bbb"]).stdout
    missing = call(app, ["store", "pull", place, "ccc"])
    assert (missing.exit_code, "no run 'ccc'" in missing.output) == (2, True)
    with pytest.raises(StageError):
        pull(tmp_path / "other", remote_at(place), ["ccc"], quiet)
