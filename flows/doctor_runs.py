"""Runs that Prefect or MLflow show as running although their process is gone, and how both are told."""

import fcntl
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, TaskRunFilter, TaskRunFilterState
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from dreampolish.tracking import PARENT_JOURNAL, Journal, place_from_store
from flows.doctor_findings import Finding
from flows.services_marks import FlowMark, all_marks, forget_mark
from flows.services_state import mark_of
from stages.run_record import record_path

BUSY = [StateType.RUNNING, StateType.CANCELLING]
GONE = "its process is gone"


def killed_flow_findings(store: Path) -> list[Finding]:
    """Flow runs of this store whose process is gone, known without a server."""
    found = []
    for mark in all_marks(store):
        if not mark.process.alive:
            named = f"run {mark.run}" if mark.run else f"a {mark.flow} flow"
            later = f", then dreampolish resume {mark.run}" if mark.run else ""
            found.append(
                Finding(
                    f"{named} was killed while it ran (process {mark.process.pid} is gone); dreampolish doctor --mend{later}",
                    partial(crash_marked, store, mark),
                )
            )
    return found


def stuck_flow_findings(store: Path) -> list[Finding]:
    """Flow runs that the server shows as running, without a mark of this store, and whose worker's process is gone."""
    marked = {mark.flow_run for mark in all_marks(store)}
    with get_client(sync_client=True) as client:
        state = FlowRunFilterState.model_validate({"type": {"any_": BUSY}})
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), limit=200)
    return [
        Finding(
            f"flow run {run.name} is Running in Prefect, but {GONE}; dreampolish doctor --mend",
            partial(_crash_by_name, str(run.id)),
        )
        for run in runs
        if str(run.id) not in marked and process_is_gone(run)
    ]


def process_is_gone(run: FlowRun) -> bool:
    """Whether the process that a worker of this machine started for a flow run is gone; False where that cannot be told."""
    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    return pid.isdigit() and host in ("", socket.gethostname()) and mark_of(int(pid)) is None


def crash_marked(store: Path, mark: FlowMark) -> None:
    """Set a killed flow run and its tasks to Crashed and forget its mark."""
    _crash_by_name(mark.flow_run)
    forget_mark(store, mark)


def _crash_by_name(flow_run: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(flow_run)  # type: ignore[arg-type]
        except ObjectNotFound:
            return
        _crash_tasks(client, run)
        if run.state is not None and not run.state.is_final():
            client.set_flow_run_state(run.id, Crashed(message=GONE), force=True)


def _crash_tasks(client: SyncPrefectClient, run: FlowRun) -> None:
    state = TaskRunFilterState.model_validate({"type": {"any_": BUSY}})
    within = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    for task in client.read_task_runs(flow_run_filter=within, task_run_filter=TaskRunFilter(state=state), limit=200):
        client.set_task_run_state(task.id, Crashed(message=GONE), force=True)


def open_journal_findings(store: Path, tracking_uri: str | None) -> list[Finding]:
    """Runs that MLflow shows as running and that nothing computes any more."""
    marks = [mark for mark in all_marks(store) if mark.process.alive]
    found = []
    for folder in sorted((store / "journals").glob("*")):
        dead = [path.stem for path in sorted(folder.glob("*.jsonl")) if not _ended(path) and not _alive(store, path, marks)]
        if dead:
            found.append(
                Finding(
                    f"run {folder.name} is still open in MLflow ({', '.join(dead)}), but {GONE}; dreampolish doctor --mend",
                    partial(close_journals, store, folder, dead, tracking_uri),
                )
            )
    return found


def close_journals(store: Path, folder: Path, names: Sequence[str], tracking_uri: str | None) -> None:
    """Mark journals' runs KILLED; the tracker is told now, or with the next run when it is away."""
    place = place_from_store(store, tracking_uri)
    for name in names:
        journal = Journal(folder, name, name, {})
        journal.end("KILLED")
        journal.send(place)


def _ended(path: Path) -> bool:
    """Whether a journal closes its run; a quote inside a value is escaped, so that this cannot be part of a prompt."""
    return b'"status":"' in path.read_bytes()


def _alive(store: Path, journal: Path, marks: Sequence[FlowMark]) -> bool:
    """Whether something may still write a journal: for a stage's its lock is held, for a run's a living flow names it, or none yet."""
    run = journal.parent.name
    # What a study or a benchmark writes is named by no run; its flow's mark names none either.
    if any(mark.run == run or (mark.run == "" and not record_path(store, run).exists()) for mark in marks):
        return True
    locks = f"run-{run}" if journal.stem == PARENT_JOURNAL else f"{journal.stem}*"
    return any(_held(path) for path in (store / "locks").glob(locks))


def _held(lock: Path) -> bool:
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
