"""Places that several machines reach: a folder, fsspec's memory, and an S3 server where one is installed (moto)."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.runtime.errors import StageError
from stages.runtime.shared import remote as remotes
from stages.runtime.shared.remote import ObjectRemote, Remote, remote_at


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Remote]:
    if request.param == "folder":
        yield remote_at(str(tmp_path / "place"))
    elif request.param == "memory":
        yield remote_at(f"memory://{tmp_path.name}")
    else:
        yield remote_at(f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}")


def test_objects_are_written_read_listed_and_removed(place: Remote, tmp_path: Path) -> None:
    assert place.names("") == []
    assert place.names("runs") == []
    assert not place.exists("runs/a.json")
    with pytest.raises(FileNotFoundError):
        place.read("runs/a.json")
    with pytest.raises(FileNotFoundError):
        place.download("runs/a.json", tmp_path / "none")
    place.write("runs/a.json", b"one")
    place.write("runs/a.json", b"two")
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    place.upload(tmp_path / "source", "runs/deep/b")
    assert place.read("runs/a.json") == b"two"
    assert place.names("runs") == ["a.json", "deep"]
    assert place.names("") == ["runs"]
    place.download("runs/deep/b", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"x" * 100_000
    age = place.age_s("runs/a.json")
    assert age is not None and age < 60
    assert not place.exists("runs"), "a folder is no object"
    place.remove("runs/a.json")
    place.remove("runs/a.json")
    assert place.names("runs") == ["deep"]
    place.remove("runs")
    assert place.names("") == []


def test_one_of_many_creators_wins(place: Remote) -> None:
    assert place.create("leases/1", b"first")
    assert not place.create("leases/1", b"second")
    assert place.read("leases/1") == b"first"
    won: list[int] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        if place.create("leases/2", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert place.read("leases/2") == str(won[0]).encode()


def test_a_folder_s_objects_are_its_owner_s_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        place = remote_at(f"file://{tmp_path}/place")
        place.write("runs/a", b"1")
        place.create("results/b", b"1")
        place.upload(tmp_path / "place/runs/a", "files/c/d")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "place").rglob("*")}
    assert modes == {"runs": 0o700, "results": 0o700, "files": 0o700, "c": 0o700, "a": 0o600, "b": 0o600, "d": 0o600}
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o700


def test_a_place_that_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "PAUSE_S", 0.01)
    place = ObjectRemote("memory://patience")
    place.write("a", b"1")
    answers = iter([ConnectionError("gone"), TimeoutError("slow")])
    whole = type(place._files).cat_file

    def failing(self: object, path: str, **more: object) -> bytes:
        error = next(answers, None)
        if error is not None:
            raise error
        return bytes(whole(self, path, **more))

    monkeypatch.setattr(type(place._files), "cat_file", failing)
    assert place.read("a") == b"1"
    place._patience_s = 0.05
    answers = iter([ConnectionError("connection\nrefused")] * 100)
    with pytest.raises(StageError, match="does not answer: connection refused") as caught:
        place.read("a")
    assert "\n" not in str(caught.value)


def test_a_lost_answer_of_a_creation_is_no_defeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "PAUSE_S", 0.01)
    place = ObjectRemote("memory://lost")
    whole = type(place._files).pipe_file
    lost = iter([True])

    def losing(self: object, path: str, value: bytes, **more: object) -> None:
        whole(self, path, value, **more)
        if next(lost, False):
            raise ConnectionError("the answer was lost")

    monkeypatch.setattr(type(place._files), "pipe_file", losing)
    assert place.create("a", b"mine")
    assert not place.create("a", b"theirs")


def test_addresses_that_are_none_cost_one_line() -> None:
    for url, words in (("nowhere://bucket", "no address"), ("gs://bucket/x", "cannot be opened")):
        with pytest.raises(StageError, match=words) as caught:
            remote_at(url)
        assert "\n" not in str(caught.value)


def test_a_deployed_run_waits_for_a_store_that_is_away_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal a wrong address is told soon; a worker's run was given one that worked."""

    class Away:
        """Answers from the third call on."""

        calls = 0

        def ls(self, path: str, *, detail: bool) -> list[str]:
            self.calls += 1
            if self.calls < 3:
                raise ConnectionError("Connect call failed")
            return []

    away = Away()
    monkeypatch.setattr(remotes, "_file_system", lambda url: (away, "bucket"))
    monkeypatch.setattr(remotes, "PAUSE_S", 0.001)
    monkeypatch.setattr(remotes, "FIRST_S", 0.0)
    monkeypatch.delenv(remotes.DEPLOYED_RUN, raising=False)
    with pytest.raises(StageError, match="does not answer: Connect call failed"):
        ObjectRemote("s3://bucket/store")
    away.calls = 0
    monkeypatch.setenv(remotes.DEPLOYED_RUN, "an id")
    assert ObjectRemote("s3://bucket/store").names("") == []
    assert away.calls == 4
