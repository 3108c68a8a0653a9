"""What is wrong with an installation and its store, in plain words with the command that mends it. Looking changes nothing."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.runs.create import check_priors
from flows.service.doctor.findings import Finding
from flows.service.processes import mark_of
from flows.store.verify import check_results
from schemas.config.presets import ConfigError
from schemas.config.run import Config
from stages.runtime.errors import StageError
from stages.runtime.files import PROJECT, free_space
from stages.runtime.records import newest_records, read_record
from stages.runtime.shared.stores import shared_remote

LOW_DISK_BYTES = 2 * 2**30


def findings(store: Path, *, deep: bool = False, say: Callable[[str], None] | None = None) -> list[Finding]:
    """One finding for each thing that is wrong; empty when all is well.

    deep: compare the files of all results with their hashes, not those of a sample; say: hears how many were left out.
    """
    return [
        *_prior_findings(),
        *_disk_findings(store),
        *_shared_findings(),
        *_service_findings(store),
        *_dvc_findings(),
        *store_findings(store, deep=deep, say=say),
        *_run_findings(store),
    ]


def mend(found: list[Finding]) -> list[str]:
    """Mend what can be mended safely; one line for each attempt."""
    lines = []
    for finding in found:
        if finding.mend is not None:
            what = finding.line.partition(";")[0]
            try:
                finding.mend()
            except Exception as error:
                # Whatever keeps one from being mended, the others still are.
                lines.append(f"could not mend: {what} ({' '.join(str(error).split())[:200]})")
            else:
                lines.append(f"mended: {what}")
    return lines


def _prior_findings() -> list[Finding]:
    try:
        check_priors(Config())
    except ConfigError as error:
        return [Finding(str(error))]
    return []


def _disk_findings(store: Path) -> list[Finding]:
    folder = store
    while not folder.exists():
        folder = folder.parent
    if shutil.disk_usage(folder).free < LOW_DISK_BYTES:
        return [Finding(f"only {free_space(folder)} free at {folder}; make room or point DREAMPOLISH_STORE elsewhere")]
    return []


def _shared_findings() -> list[Finding]:
    """A store that machines share, and that does not answer."""
    try:
        shared_remote()
    except StageError as error:
        return [Finding(str(error))]
    return []


def _service_findings(store: Path) -> list[Finding]:
    """What concerns Prefect and MLflow; a server is asked only where one runs."""
    if not store.is_dir():
        return []
    from flows.service.deployments import prefect_url
    from flows.service.doctor.prefect_runs import (
        asked_again,
        killed_flow_findings,
        open_journal_findings,
        process_findings,
        secret_findings,
        server_findings,
        server_trouble,
        stuck_flow_findings,
    )

    closed = secret_findings(store)
    found = [*process_findings(store), *closed, *killed_flow_findings(store)]
    url = prefect_url()
    if url is not None:
        try:
            found += asked_again(lambda: [*server_findings(store), *stuck_flow_findings(store)])
        except Exception as error:
            found += server_trouble(url, error, is_known=bool(closed))
    return [*found, *open_journal_findings(store, os.environ.get("MLFLOW_TRACKING_URI"))]


def _dvc_findings() -> list[Finding]:
    path = next(
        (folder / ".dvc/tmp/rwlock" for folder in (Path.cwd(), PROJECT) if (folder / ".dvc/tmp/rwlock").is_file()), None
    )
    if path is None:
        return []
    dead = sorted({pid for pid in dvc_holders(path) if mark_of(pid) is None})
    if not dead:
        return []
    return [
        Finding(
            f"DVC's lock {path} belongs to process {dead[0]}, which is gone, so dvc refuses to run; rm {path}",
            partial(path.unlink),
        )
    ]


def dvc_holders(path: Path) -> list[int]:
    """The processes that a DVC rwlock names: readers and writers of each path. An unreadable lock names none."""
    try:
        noted = json.loads(path.read_bytes() or b"{}")
        entries = [entry for held in noted.values() for entry in [*held.get("read", []), held.get("write") or {}]]
        return [int(entry["pid"]) for entry in entries if "pid" in entry]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def store_findings(store: Path, *, deep: bool, say: Callable[[str], None] | None = None) -> list[Finding]:
    """Damaged and unfinished results, and what interrupted stages have left. say: hears of how many results the files were not read."""
    checked = check_results(store, deep=deep)
    if say is not None and checked.hashed < checked.results:
        say(
            f"of {checked.results:,} results {checked.hashed:,} were read and compared with their hashes; dreampolish doctor --deep"
        )
    found = [
        Finding(f"{each.what}; rm -r {each.folder}, or run the stage again")
        if each.unfinished
        else Finding(f"{each.what}; rm -r {each.folder}, then dreampolish resume its run")
        for each in checked.problems
    ]
    leavings = [path for path in (store / "work").glob("*") if not _in_use(path)]
    if leavings:
        folders = "1 work folder" if len(leavings) == 1 else f"{len(leavings)} work folders"
        what = f"{folders} of interrupted stages in {store / 'work'}"
        found.append(Finding(f"{what}; removed when those stages run again"))
    return found


def _in_use(work: Path) -> bool:
    """Whether the process that made a work folder, which its name ends with, still runs."""
    pid = work.name.rpartition("-")[2]
    return pid.isdigit() and mark_of(int(pid)) is not None


def _run_findings(store: Path) -> list[Finding]:
    from flows.service.marks import all_marks

    going_on = {mark.run for mark in all_marks(store) if mark.alive}
    found = []
    for path in newest_records(store):
        try:
            record = read_record(store, path.stem, fresh=False)
        except StageError as error:
            found.append(Finding(str(error)))
            continue
        if record.run in going_on:
            continue
        if record.output is None:
            found.append(Finding(f"run {record.run} ({record.prompt[:40]}) is unfinished; dreampolish resume {record.run}"))
        elif not Path(record.output).is_dir():
            found.append(Finding(f"the output {record.output} is gone; dreampolish resume {record.run} writes it again"))
    return found
