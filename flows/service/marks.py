"""Which flow runs have a living process: `<store>/flow-runs/<flow run id>.json`, there from a flow's first line to its last.

A file whose process is gone belongs to a killed flow run, which Prefect without a worker shows as Running for ever.
"""

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

from prefect.runtime import flow_run as current_flow_run

from dreampolish.optim.atomic_files import write_atomically
from flows.service.processes import ProcessMark, own_mark
from stages.runtime.files import store_folder

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class FlowMark:
    """A flow run and its process. run: our run that it computes; empty before that is known, and for flows without one.

    host: the machine of the process; empty in marks of earlier versions, which are this machine's.
    """

    flow_run: str
    flow: str
    process: ProcessMark
    run: str = ""
    host: str = ""

    @property
    def alive(self) -> bool:
        """Whether its process runs. One of another machine that shares the store counts as running: only that machine can tell."""
        return self.host not in ("", socket.gethostname()) or self.process.alive


def at_work(function: Callable[P, R]) -> Callable[P, R]:
    """Keep a flow's mark while its function runs; goes below `@flow`. Outside a flow nothing is noted."""

    @wraps(function)
    def marked(*args: P.args, **kwargs: P.kwargs) -> R:
        identity = current_flow_run.get_id()
        if identity is None:
            return function(*args, **kwargs)
        store = store_folder()
        _tell_machine(identity)
        path = _write(
            store, FlowMark(str(identity), str(current_flow_run.get_flow_name()), own_mark(), host=socket.gethostname())
        )
        try:
            return function(*args, **kwargs)
        finally:
            path.unlink(missing_ok=True)

    return marked


MACHINE = "dreampolish.machine"
"""Label of a flow run: the machine of its process, which Prefect's own note of that does not name."""


def _tell_machine(flow_run: str) -> None:
    """Label a flow run with this machine. Without the label it counts as of any; that is no reason to end it."""
    from prefect.client.orchestration import get_client

    with suppress(Exception), get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(flow_run), {MACHINE: socket.gethostname()})


def note_run(store: Path, run_id: str) -> None:
    """Note which run the current flow computes."""
    identity = current_flow_run.get_id()
    mark = None if identity is None else _read(marks_folder(store) / f"{identity}.json")
    if mark is not None:
        _write(store, replace(mark, run=run_id))


def all_marks(store: Path) -> list[FlowMark]:
    """The marks of living and of killed flow runs."""
    found = (_read(path) for path in sorted(marks_folder(store).glob("*.json")))
    return [mark for mark in found if mark is not None]


def forget_mark(store: Path, mark: FlowMark) -> None:
    """Remove a mark."""
    (marks_folder(store) / f"{mark.flow_run}.json").unlink(missing_ok=True)


def marks_folder(store: Path) -> Path:
    """Where marks lie."""
    return store / "flow-runs"


def _write(store: Path, mark: FlowMark) -> Path:
    path = marks_folder(store) / f"{mark.flow_run}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(mark)).encode())
    return path


def _read(path: Path) -> FlowMark | None:
    try:
        noted = json.loads(path.read_bytes())
        return FlowMark(**{"host": "", **noted, "process": ProcessMark(**noted["process"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None
