"""The store: published at once or not at all, verified, safe under faults and races."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from dreampolish.optim.atomic_files import sha256_of
from schemas.artifacts import FileRef, NerfArtifact
from stages.runtime.errors import StageError
from stages.runtime.files import is_locked
from stages.runtime.signals import StoppedError, stop_on_signals
from stages.runtime.store import MANIFEST, MANIFEST_HASH, DamagedArtifactError, LocalStore, file_refs
from tests.support.damage import overwrite

PROJECT = Path(__file__).parents[3]
KEY = "f" * 64
PAYLOAD = bytes(range(256)) * 8


def prepared(local: LocalStore) -> tuple[Path, NerfArtifact]:
    work = local.work_folder("nerf", KEY)
    (work / "parts").mkdir()
    (work / "parts/field.bin").write_bytes(PAYLOAD)
    reference = FileRef(path="parts/field.bin", sha256=sha256_of(work / "parts/field.bin"), bytes=len(PAYLOAD))
    artifact = NerfArtifact(
        fingerprint=KEY,
        parents={},
        metrics={},
        seconds=0,
        peak_memory=0,
        field=reference,
        field_config={},
        occupancy=reference,
        steps=1,
        switch_reason="cap",
    )
    return work, artifact


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_publish_then_open(local: LocalStore) -> None:
    assert not local.has("nerf", KEY)
    with pytest.raises(KeyError):
        local.open("nerf", KEY, NerfArtifact)
    work, artifact = prepared(local)
    assert local.publish(work, artifact) == artifact
    assert local.open("nerf", KEY, NerfArtifact) == artifact
    assert not work.exists()
    assert len(file_refs(artifact)) == 2


def test_the_first_publisher_wins(local: LocalStore) -> None:
    work, artifact = prepared(local)
    local.publish(work, artifact)
    again, other = prepared(local)
    assert local.publish(again, other.model_copy(update={"steps": 99})) == artifact
    assert not again.exists()


def test_a_folder_without_manifest_is_no_artifact_and_is_replaced(local: LocalStore) -> None:
    work, artifact = prepared(local)
    local.publish(work, artifact)
    (local.folder("nerf", KEY) / MANIFEST).unlink()
    assert not local.has("nerf", KEY)
    work, artifact = prepared(local)
    local.publish(work, artifact)
    assert local.open("nerf", KEY, NerfArtifact) == artifact


FILES = ("parts/field.bin", MANIFEST, MANIFEST_HASH)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tenth", range(10))
def test_truncation_is_detected(local: LocalStore, name: str, tenth: int) -> None:
    local.publish(*prepared(local))
    path = local.folder("nerf", KEY) / name
    content = path.read_bytes()
    overwrite(path, content[: len(content) * tenth // 10])
    with pytest.raises(DamagedArtifactError, match=path.name if name != MANIFEST_HASH else MANIFEST):
        local.open("nerf", KEY, NerfArtifact)


def test_a_thousand_flipped_bits_are_detected(local: LocalStore) -> None:
    local.publish(*prepared(local))
    folder, random = local.folder("nerf", KEY), Random(0)
    contents = {name: (folder / name).read_bytes() for name in FILES}
    for flip in range(1000):
        name = FILES[flip % len(FILES)]
        position = random.randrange(len(contents[name]) * 8)
        changed = bytearray(contents[name])
        changed[position // 8] ^= 1 << position % 8
        overwrite(folder / name, bytes(changed))
        with pytest.raises(DamagedArtifactError):
            local.open("nerf", KEY, NerfArtifact)
        overwrite(folder / name, contents[name])
    assert local.open("nerf", KEY, NerfArtifact).steps == 1


def test_swapped_and_missing_files_are_detected(local: LocalStore) -> None:
    local.publish(*prepared(local))
    folder = local.folder("nerf", KEY)
    path = folder / "parts/field.bin"
    path.unlink()
    with pytest.raises(DamagedArtifactError, match="missing"):
        local.open("nerf", KEY, NerfArtifact)
    path.write_bytes(PAYLOAD[::-1])
    with pytest.raises(DamagedArtifactError, match=r"field\.bin differs"):
        local.open("nerf", KEY, NerfArtifact)
    path.write_bytes(PAYLOAD)
    manifest = (folder / MANIFEST).read_text()
    for broken in (manifest[: len(manifest) // 2], manifest.replace(KEY, "e" * 64), manifest.replace('"nerf"', '"neus"'), ""):
        # With its hash, as another artifact's folder under this one's name would have it.
        overwrite(folder / MANIFEST, broken.encode())
        overwrite(folder / MANIFEST_HASH, hashlib.sha256(broken.encode()).hexdigest().encode() + b"\n")
        with pytest.raises(DamagedArtifactError):
            local.open("nerf", KEY, NerfArtifact)


def test_a_manifest_without_its_hash_is_refused(local: LocalStore) -> None:
    local.publish(*prepared(local))
    (local.folder("nerf", KEY) / MANIFEST_HASH).unlink()
    with pytest.raises(DamagedArtifactError, match="or its hash cannot be read"):
        local.open("nerf", KEY, NerfArtifact)


@pytest.mark.parametrize("name", [*FILES, "parts", "."])
def test_a_link_in_the_place_of_a_file_is_refused(local: LocalStore, tmp_path: Path, name: str) -> None:
    local.publish(*prepared(local))
    path = local.folder("nerf", KEY) / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedArtifactError, match="is a link"):
        local.open("nerf", KEY, NerfArtifact)


def test_what_is_published_can_be_read_only_and_by_its_owner_alone(local: LocalStore) -> None:
    local.publish(*prepared(local))
    folder = local.folder("nerf", KEY)
    assert {path.name: path.stat().st_mode & 0o777 for path in (folder, folder / "parts")} == {KEY: 0o700, "parts": 0o700}
    assert {name: (folder / name).stat().st_mode & 0o777 for name in FILES} == dict.fromkeys(FILES, 0o400)
    local.discard("nerf", KEY)
    assert not folder.exists()


def test_a_disk_error_while_reading_discards_nothing(local: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    local.publish(*prepared(local))

    def failing(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        with pytest.raises(OSError, match="Input/output error"):
            local.open("nerf", KEY, NerfArtifact)
    assert local.open("nerf", KEY, NerfArtifact).steps == 1


@pytest.mark.parametrize("operation", ["fsync", "rename", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_disk_faults_are_one_line_and_leave_the_store_readable(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, operation: str, code: int
) -> None:
    """Every call of an operation fails in turn, until a publication goes through undisturbed."""
    originals = {"fsync": os.fsync, "rename": Path.rename, "mkdir": Path.mkdir}
    for nth in range(1, 40):
        count = 0

        def failing(*arguments: object, nth: int = nth, **options: object) -> object:
            nonlocal count
            count += 1
            if count == nth:
                raise OSError(code, os.strerror(code), str(arguments[0]))
            return originals[operation](*arguments, **options)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            patch.setattr(os if operation == "fsync" else Path, operation, failing)
            try:
                local.publish(*prepared(local))
            except StageError as error:
                assert os.strerror(code) in str(error)
                assert "MiB free" in str(error)
                assert "\n" not in str(error)
                # Only the very last sync may fail after the artifact became visible, and then it is whole.
                assert not local.has("nerf", KEY) or local.open("nerf", KEY, NerfArtifact).steps == 1
                local.discard("nerf", KEY)
            except OSError:
                # Raised in this test's own preparation, outside the store.
                assert operation == "mkdir"
        if count < nth:
            break
    assert local.open("nerf", KEY, NerfArtifact).steps == 1


@contextmanager
def held_by_another_process(local: LocalStore) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of one computation and sleeps."""
    code = (
        "import sys, time; from pathlib import Path; from stages.runtime.store import LocalStore\n"
        "with LocalStore(Path(sys.argv[1])).lock('nerf', sys.argv[2], lambda: False): print('held', flush=True); time.sleep(60)"
    )
    arguments = [sys.executable, "-c", code, str(local.root), KEY]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_waiting_can_be_given_up_and_a_killed_holder_s_lock_is_free(local: LocalStore) -> None:
    path = local.root / "locks" / f"nerf-{KEY}"
    with held_by_another_process(local) as holder:
        assert is_locked(path)
        with pytest.raises(StoppedError, match="another process"), local.lock("nerf", KEY, lambda: True):
            pass
        holder.kill()
        holder.wait(10)
        with local.lock("nerf", KEY, lambda: False):
            assert list(path.parent.iterdir()) == [path]
    assert not is_locked(path)


def test_waiting_for_a_lock_ends_on_a_signal(local: LocalStore) -> None:
    with held_by_another_process(local), stop_on_signals() as stop:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        started = time.monotonic()
        with pytest.raises(StoppedError, match="another process"), local.lock("nerf", KEY, lambda: stop.requested):
            pass
        assert 0.2 < time.monotonic() - started < 5
