"""Two machines, each with a cache of its own, and one shared store."""

import shutil
from pathlib import Path

import pytest
import torch

from dreampolish.optim.atomic_files import sha256_of
from schemas.artifacts import FileRef, NerfArtifact
from schemas.config.run import Config
from schemas.runs import RunRecord
from schemas.stores import StoreSettings
from stages.runtime.errors import StageError
from stages.runtime.files import shared_url, store_environment, store_folder
from stages.runtime.records import newest_records, read_record, record_name, record_path, write_record
from stages.runtime.shared import stores
from stages.runtime.shared.checkpoints import SharedCheckpoints
from stages.runtime.shared.remote import FolderRemote
from stages.runtime.shared.results import file_name, has_result, result_name
from stages.runtime.shared.stores import SharedStore, bring_input, store_at
from stages.runtime.store import DamagedArtifactError
from tests.support.damage import overwrite

KEY = "f" * 64
SETTINGS = StoreSettings(lease_s=3, checkpoint_s=0)


def machine(tmp_path: Path, name: str) -> SharedStore:
    return SharedStore(tmp_path / name, FolderRemote(tmp_path / "shared"), SETTINGS)


def compute(store: SharedStore, content: bytes = b"result") -> NerfArtifact:
    work = store.work_folder("nerf", KEY)
    (work / "field.bin").write_bytes(content)
    file = FileRef(path="field.bin", sha256=sha256_of(work / "field.bin"), bytes=len(content))
    common = {"fingerprint": KEY, "parents": {}, "metrics": {}, "seconds": 1, "peak_memory": 1}
    more = {"field": file, "field_config": {}, "occupancy": file, "steps": 1, "switch_reason": "cap"}
    return store.publish(work, NerfArtifact.model_validate({**common, **more}))


def test_what_one_publishes_the_other_has(tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    assert not two.has("nerf", KEY)
    artifact = compute(one)
    assert two.has("nerf", KEY)
    with two.lock("nerf", KEY, lambda: False):
        assert two.remote.names("leases") == [], "nothing is computed"
    assert two.open("nerf", KEY, NerfArtifact) == artifact
    assert (two.folder("nerf", KEY) / "field.bin").read_bytes() == b"result"
    two.check_parents([artifact])


def test_the_first_publisher_wins_over_machines(tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    first = compute(one, b"first")
    assert compute(two, b"second") == first
    assert (two.folder("nerf", KEY) / "field.bin").read_bytes() == b"first"
    assert list((two.root / "work").iterdir()) == []


def test_a_publisher_that_is_beaten_at_the_last_moment_takes_the_other_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    first = compute(one, b"first")
    looks = iter([False])
    monkeypatch.setattr(stores, "has_result", lambda *given: next(looks, None) is None and has_result(*given))
    assert compute(two, b"second") == first
    assert (two.folder("nerf", KEY) / "field.bin").read_bytes() == b"first"


def test_a_kill_between_here_and_there_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = machine(tmp_path, "one")

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores, "send_result", killed)
        with pytest.raises(KeyboardInterrupt):
            compute(one)
    assert not has_result(one.remote, "nerf", KEY)
    assert one.share(one.open("nerf", KEY, NerfArtifact))
    assert machine(tmp_path, "two").open("nerf", KEY, NerfArtifact).steps == 1


def test_damage_here_is_healed_from_there_and_damage_there_is_computed_anew(tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    artifact = compute(one)
    two.open("nerf", KEY, NerfArtifact)
    overwrite(two.folder("nerf", KEY) / "field.bin", b"wrong!")
    assert two.open("nerf", KEY, NerfArtifact) == artifact
    shared = tmp_path / "shared"
    overwrite(shared / file_name(artifact.field.sha256), b"wrong!")
    three = machine(tmp_path, "three")
    with pytest.raises(DamagedArtifactError):
        three.open("nerf", KEY, NerfArtifact)
    three.discard_damaged("nerf", KEY)
    assert not three.has("nerf", KEY)
    compute(three)
    assert machine(tmp_path, "four").open("nerf", KEY, NerfArtifact) == artifact
    overwrite(shared / result_name("nerf", KEY), b"{}")
    with pytest.raises(DamagedArtifactError, match="no hash"):
        machine(tmp_path, "five").open("nerf", KEY, NerfArtifact)


def checkpoints(store: SharedStore, *, barred: bool = False) -> SharedCheckpoints:
    found = store.checkpoints("nerf", KEY, interval=1, journal=store.root / "journals/a/nerf.jsonl", urgent=lambda: False)
    assert isinstance(found, SharedCheckpoints)
    found._barred = lambda: barred
    return found


def test_another_machine_goes_on_from_a_checkpoint_with_its_journal(tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    (one.root / "journals/a").mkdir(parents=True)
    (one.root / "journals/a/nerf.jsonl").write_bytes(b'{"t":1}\n')
    mine = checkpoints(one)
    mine.save(1, {"value": torch.arange(3)})
    mine.save(2, {"value": torch.arange(4)})
    theirs = checkpoints(two)
    found = theirs.latest()
    assert found is not None
    assert (found[0], found[1]["value"].tolist()) == (2, [0, 1, 2, 3])
    assert (two.root / "journals/a/nerf.jsonl").read_bytes() == b'{"t":1}\n'
    assert theirs.cost().seconds > 0
    assert len(two.remote.names(f"checkpoints/nerf-{KEY}.files")) == 4
    theirs.clear()
    assert two.remote.names("checkpoints") == []
    assert checkpoints(machine(tmp_path, "three")).latest() is None


def test_a_damaged_or_older_checkpoint_is_passed_over(tmp_path: Path) -> None:
    one, two = machine(tmp_path, "one"), machine(tmp_path, "two")
    checkpoints(one).save(1, {"value": torch.arange(3)})
    files = tmp_path / f"shared/checkpoints/nerf-{KEY}.files"
    kept = tmp_path / "kept"
    shutil.copytree(files, kept)
    for path in files.iterdir():
        path.write_bytes(b"?")
    assert checkpoints(two).latest() is None
    shutil.rmtree(files)
    shutil.copytree(kept, files)
    ahead = checkpoints(two)
    ahead._looked = True
    ahead._barred = lambda: True
    ahead.save(5, {"value": torch.arange(1)})
    found = checkpoints(two).latest()
    assert found is not None
    assert found[0] == 5, "its own is newer; nothing was sent by whoever lost the lease"
    found = checkpoints(machine(tmp_path, "three")).latest()
    assert found is not None
    assert found[0] == 1


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a process in front of a shared store."""
    stores._remote.cache_clear()
    monkeypatch.setenv("DREAMPOLISH_STORE", f"file://{tmp_path}/shared")
    monkeypatch.setenv("DREAMPOLISH_STORE_CACHE", str(tmp_path / "one"))
    return tmp_path / "shared"


def test_the_environment_names_a_shared_store_and_its_cache(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_folder() == tmp_path / "one"
    assert shared_url() == f"file://{shared}"
    assert isinstance(store_at(store_folder()), SharedStore)
    for name, value in store_environment(store_folder()).items():
        monkeypatch.setenv(name, value)
    assert store_folder() == tmp_path / "one"
    monkeypatch.setenv("DREAMPOLISH_STORE", str(tmp_path / "plain"))
    assert (store_folder(), shared_url()) == (tmp_path / "plain", None)
    assert not isinstance(store_at(store_folder()), SharedStore)


def test_records_and_pictures_are_shared(shared: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "inputs").mkdir(parents=True)
    (one / "inputs/picture").write_bytes(b"a picture")
    digest = sha256_of(one / "inputs/picture")
    (one / "inputs/picture").rename(one / "inputs" / digest)
    record = RunRecord(run="aaaaaaa1", prompt="a chair", config=Config(), created="2026-01-01", image=digest)
    write_record(one, record)
    assert read_record(two, "aaaa") == record
    bring_input(two, digest)
    assert (two / "inputs" / digest).read_bytes() == b"a picture"
    write_record(two, record.model_copy(update={"prompt": "a table"}))
    assert read_record(one, "aaaaaaa1").prompt == "a table"
    assert read_record(one, "aaaaaaa1", fresh=False).prompt == "a table"
    assert [path.stem for path in newest_records(tmp_path / "three", fresh=True)] == ["aaaaaaa1"]
    (shared / record_name("aaaaaaa1")).write_bytes(record_path(one, "aaaaaaa1").read_bytes())
    with pytest.raises(StageError, match="is damaged"):
        read_record(one, "aaaaaaa1")
