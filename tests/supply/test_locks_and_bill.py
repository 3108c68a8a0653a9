"""The locks pin everything by hash, the bill of materials lists what they hold, and every weight and datum has a licence and a source."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from supply.lock import CPU_LOCK, CUDA_LOCK, EXTRAS, LOCK, PROJECT, entries_of, requirement_of
from supply.sources import FOLDERS, digest_of, entries, entry_of, files_of

LICENCES = {"Apache-2.0", "BSD-3-Clause", "CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}
"""Those that this project passes on."""


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PROJECT / "supply" / "bill.cdx.json").read_text())
    return found


def versions(*locks: Path) -> dict[str, str]:
    pins = [requirement_of(entry) for lock in locks for entry in entries_of(lock.read_text()).values()]
    return {name: version for name, _, version in (pin.partition("==") for pin in pins)}


def tracked(folder: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no checkout")
    return [Path(line) for line in listed.stdout.splitlines()]


@pytest.mark.parametrize("lock", [LOCK, CUDA_LOCK, CPU_LOCK], ids=lambda path: path.name)
def test_every_line_of_a_lock_is_one_version_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    found = entries_of(text)
    assert found
    for entry in found.values():
        assert re.fullmatch(r"\S+==\S+( ; [^\\]+?)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    rest = text
    for entry in found.values():
        rest = rest.replace(entry, "", 1)
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert "://" not in text


def test_the_locks_hold_what_pyproject_asks_for_and_do_not_overlap() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [line for name in EXTRAS for line in project["optional-dependencies"][name]]
    wanted = [Requirement(line) for line in [*project["dependencies"], *extras]]
    pinned = versions(LOCK)
    assert [str(each) for each in wanted if not each.specifier.contains(pinned[each.name.lower().replace("_", "-")])] == []
    assert not set(pinned) & set(versions(CUDA_LOCK))
    assert versions(CPU_LOCK) == {"torch": f"{pinned['torch']}+cpu"}
    hashes = re.findall("[0-9a-f]{64}", CPU_LOCK.read_text())
    assert all(digest in entries_of(LOCK.read_text())["torch"] for digest in hashes)


def test_npms_lock_pins_what_package_json_asks_for_by_hash() -> None:
    wanted = json.loads((PROJECT / "package.json").read_text())["devDependencies"]
    packages = json.loads((PROJECT / "package-lock.json").read_text())["packages"]
    found = {path.rpartition("node_modules/")[2]: entry for path, entry in packages.items() if path}
    assert {name: found[name]["version"] for name in wanted} == wanted
    assert all(entry["integrity"].startswith("sha512-") and "resolved" not in entry for entry in found.values())


def test_the_bill_lists_the_locks(bill: dict[str, Any]) -> None:
    def listed(kind: str) -> dict[str, str]:
        return {each["name"]: each["version"] for each in bill["components"] if each.get("purl", "").startswith(f"pkg:{kind}/")}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert listed("pypi") == versions(LOCK, CUDA_LOCK), "make bill"
    packages = json.loads((PROJECT / "package-lock.json").read_text())["packages"]
    assert listed("npm") == {path.rpartition("node_modules/")[2]: entry["version"] for path, entry in packages.items() if path}


def test_the_bill_lists_weights_and_data_by_their_hash(bill: dict[str, Any]) -> None:
    listed = {each["name"]: each["hashes"][0]["content"] for each in bill["components"] if each["type"] != "library"}
    assert listed == {entry["name"]: digest_of(entry) for entry in entries() if entry["kind"] != "program"}, "make bill"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_weights_and_data_has_a_licence_and_a_source(folder: str) -> None:
    assert [str(path) for path in tracked(folder) if entry_of(path) is None] == []


def test_licences_are_known_and_sources_lead_somewhere() -> None:
    for entry in entries():
        assert {entry["licence"], *entry.get("made_from", [])} <= LICENCES, entry["name"]
        assert list(files_of(entry)), f"{entry['name']} names no file"
        named = re.findall(r"(?:priors|benchmark|dreampolish)/[\w./-]*\w", entry["source"])
        assert all((PROJECT / path).exists() for path in named), entry["name"]


def test_every_object_of_the_benchmark_says_whose_it_is() -> None:
    (licence,) = {entry["licence"] for entry in entries() if entry["name"] == "benchmark's objects"}
    folders = sorted(path for path in (PROJECT / "benchmark" / "objects").iterdir() if path.is_dir())
    assert folders
    for folder in folders:
        told = json.loads((folder / "attribution.json").read_text())
        assert told["licence"] == licence, folder.name
        assert all(told[key].strip() for key in ("name", "creator", "source", "licence_url", "changes")), folder.name


def test_the_card_names_a_licence_for_every_model_that_the_weights_were_trained_on() -> None:
    text = (PROJECT / "priors" / "home" / "README.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.partition("## Attribution")[2].splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 400
    assert {row[2].strip() for row in rows} <= {"CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}
    assert all(row[0].strip() and row[1].strip() for row in rows)
