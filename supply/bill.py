"""Writes bill.cdx.json beside it, a CycloneDX 1.6 list of what this project is made of; `make bill` calls it.

Python packages come from requirements.lock and requirements-cuda.lock, npm's from package-lock.json, weights and data from sources.yaml.
Licences of Python packages are what their metadata say in the environment that runs this. Needs cyclonedx-python-lib.
"""

import json
import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from lock import CUDA_LOCK, LOCK, PROJECT, entries_of, requirement_of
from packageurl import PackageURL
from sources import digest_of, entries

BILL = PROJECT / "supply" / "bill.cdx.json"
KINDS = {
    "model": ComponentType.MACHINE_LEARNING_MODEL,
    "data": ComponentType.DATA,
    "program": ComponentType.APPLICATION,
}
LONGEST_LICENCE = 100
"""Characters; some packages put the whole text where its name belongs."""


def main() -> None:
    """Write the bill. Its number and time are left out, so that an equal list is an equal file."""
    bom = Bom(components=[*python_packages(), *npm_packages(), *weights_and_data()])
    bom.metadata.component = Component(name="dreampolish", type=ComponentType.APPLICATION, bom_ref="dreampolish")
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["serialNumber"], document["metadata"]["timestamp"]
    document["metadata"].pop("tools", None)
    document.pop("dependencies", None)
    BILL.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def python_packages() -> Iterator[Component]:
    """One component a line of the locks."""
    for lock in (LOCK, CUDA_LOCK):
        for entry in entries_of(lock.read_text()).values():
            name, _, version = requirement_of(entry).partition("==")
            yield _component("pypi", name, version, licence_of(name), {"lock": lock.name})


def licence_of(name: str) -> str:
    """What an installed package's metadata say; empty where it is not installed or says nothing short."""
    try:
        told = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    classifiers = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier") or () if each.startswith("License ::")]
    given = [told.get("License-Expression") or "", told.get("License") or "", " AND ".join(sorted(classifiers))]
    return next((each for each in given if 0 < len(each) <= LONGEST_LICENCE and "\n" not in each), "")


def npm_packages() -> Iterator[Component]:
    """The packages of package-lock.json."""
    listed = json.loads((PROJECT / "package-lock.json").read_text())["packages"]
    for path, entry in listed.items():
        if path:
            yield _component("npm", path.rpartition("node_modules/")[2], entry["version"], entry["license"], {})


def weights_and_data() -> Iterator[Component]:
    """One component for each entry of sources.yaml, with one hash over its files."""
    for entry in entries():
        if entry["kind"] == "program":
            continue
        made_from = {"made from": ", ".join(entry["made_from"])} if "made_from" in entry else {}
        component = _component("generic", entry["name"], "", entry["licence"], {"source": entry["source"], **made_from})
        component.type, component.purl = KINDS[entry["kind"]], None
        component.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=digest_of(entry)))
        yield component


def _component(kind: str, name: str, version: str, licence: str, facts: Mapping[str, str]) -> Component:
    reference = f"{kind}:{re.sub(r'[^a-z0-9.@/-]+', '-', name.lower())}{f'@{version}' if version else ''}"
    return Component(
        name=name,
        version=version or None,
        type=ComponentType.LIBRARY,
        bom_ref=reference,
        purl=PackageURL(kind, None, name, version or None),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        properties=[Property(name=f"dreampolish:{key}", value=value) for key, value in facts.items()],
    )


if __name__ == "__main__":
    main()
