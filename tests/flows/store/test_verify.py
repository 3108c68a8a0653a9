"""What is looked at: manifests and sizes of all results, hashes of a sample or of all."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.store import verify
from flows.store.verify import check_results
from stages.runtime.store import MANIFEST
from tests.support.damage import overwrite
from tests.support.stored_runs import PAYLOAD_BYTES, key_of, published


def test_whole_results_have_no_problem(store: Path) -> None:
    for words in ("one", "two"):
        published(store, words)
    checked = check_results(store, deep=False)
    assert (checked.results, checked.hashed, checked.problems) == (2, 2, ())


def test_a_flipped_bit_outside_the_sample_is_found_by_the_deep_look_alone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        published(store, str(number))
    monkeypatch.setattr(verify, "SAMPLE", 0)
    overwrite(store / "nerf" / key_of("nerf 2") / "parts/field.bin", b"x" * PAYLOAD_BYTES)
    assert check_results(store, deep=False).problems == ()
    (problem,) = check_results(store, deep=True).problems
    assert problem.folder.name == key_of("nerf 2")
    ended = CliRunner().invoke(app, ["store", "verify"])
    assert ended.exit_code == 1
    assert "differs from what was published" in ended.stdout


def test_a_wrong_size_a_changed_manifest_and_a_missing_one_are_found_without_hashing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "SAMPLE", 0)
    folders = [store / "nerf" / published(store, words).fingerprint for words in ("short", "changed", "missing")]
    overwrite(folders[0] / "parts/field.bin", b"x")
    overwrite(folders[1] / MANIFEST, (folders[1] / MANIFEST).read_bytes().replace(b'"steps": 1', b'"steps": 2'))
    (folders[2] / MANIFEST).unlink()
    checked = check_results(store, deep=False)
    assert {problem.folder.name: problem.unfinished for problem in checked.problems} == {
        folders[0].name: False,
        folders[1].name: False,
        folders[2].name: True,
    }


def test_the_sample_ends_at_its_bytes_and_holds_others_each_time(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        published(store, str(number))
    monkeypatch.setattr(verify, "SAMPLE_BYTES", 4 * PAYLOAD_BYTES)
    seen: set[str] = set()
    for _ in range(200):
        sample = verify._sample(list(verify.result_folders(store)))
        assert len(sample) == 2, "each names the file twice"
        seen |= {folder.name for folder in sample}
    assert len(seen) == 12
