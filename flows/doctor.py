"""What is wrong with an installation and its store, in plain words with the remedy. Nothing here changes anything."""

import shutil
from pathlib import Path

from flows.runs import check_priors
from schemas.config import Config
from schemas.presets import ConfigError
from schemas.runs import STAGES
from stages.disk import free_space
from stages.entry import ARTIFACTS
from stages.errors import StageError
from stages.run_record import newest_records, read_record
from stages.store import MANIFEST, DamagedArtifactError, LocalStore

LOW_DISK_BYTES = 2 * 2**30


def findings(store: Path) -> list[str]:
    """One line for each thing that is wrong; empty when all is well."""
    return [*_prior_findings(), *_disk_findings(store), *_store_findings(store), *_run_findings(store)]


def _prior_findings() -> list[str]:
    try:
        check_priors(Config())
    except ConfigError as error:
        return [str(error)]
    return []


def _disk_findings(store: Path) -> list[str]:
    folder = store
    while not folder.exists():
        folder = folder.parent
    if shutil.disk_usage(folder).free < LOW_DISK_BYTES:
        return [f"only {free_space(folder)} free at {folder}; make room or point DREAMPOLISH_STORE elsewhere"]
    return []


def _store_findings(store: Path) -> list[str]:
    local, found = LocalStore(store), []
    for name in STAGES:
        for folder in sorted((store / name).glob("*")):
            if not (folder / MANIFEST).is_file():
                found.append(f"{folder} was never finished; rm -r it, or run the stage again")
                continue
            try:
                local.open(name, folder.name, ARTIFACTS[name])
            except DamagedArtifactError as error:
                found.append(f"{error}; rm -r {folder}, then dreampolish resume its run")
    leavings = sorted((store / "work").glob("*"))
    if leavings:
        found.append(
            f"{len(leavings)} work folders of interrupted stages in {store / 'work'}; removed when those stages run again"
        )
    return found


def _run_findings(store: Path) -> list[str]:
    found = []
    for path in newest_records(store):
        try:
            record = read_record(store, path.stem)
        except StageError as error:
            found.append(str(error))
            continue
        if record.output is None:
            found.append(f"run {record.run} ({record.prompt[:40]}) is unfinished; dreampolish resume {record.run}")
        elif not Path(record.output).is_dir():
            found.append(f"the output {record.output} is gone; dreampolish resume {record.run} writes it again")
    return found
