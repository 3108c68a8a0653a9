"""The flow of `dreampolish batch`: one deployed run for each prompt, on as many workers as there are.

Nothing of a batch is kept but the runs themselves: called again, it finds by prompt and settings which are finished (skipped), which
still go on (waited for) and which stopped half-way (resumed).
"""

import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelled
from pydantic import Field

from dreampolish.scene.untrusted.files import TEXT_BYTES, RefusedError, read_regular
from flows.report.output import write_output
from flows.runs.console import say
from flows.runs.create import check_priors, new_run
from flows.runs.inputs import plain_prompt
from flows.runs.parameters import Overrides, Preset, override_lines
from flows.runs.roots import OUTPUTS
from flows.service.backends.patience import Patience
from flows.service.backends.pool import POOL, RUN_QUEUE
from flows.service.deployments import online_workers, prefect_url
from flows.service.doctor.prefect_runs import crash_lost_runs
from flows.service.marks import at_work
from schemas.config.presets import ConfigError, load_config
from schemas.config.run import Config
from schemas.runs import RunRecord
from stages.runtime.errors import StageError
from stages.runtime.files import CONFIGS, shared_url, store_folder
from stages.runtime.records import newest_records, noted_prompt, read_record
from stages.runtime.shared.stores import store_at
from stages.runtime.signals import StoppedError

MAX_PROMPTS = 1000
Outcome = Literal["done", "skipped", "failed"]


class BatchIncompleteError(Exception):
    """Some prompts of a batch have no asset; the others have. result: that of the whole batch."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result
        failed = result["failed"]
        first = failed[0]
        super().__init__(
            f"{len(failed)} of {len(result['prompts'])} prompts failed, first {first['prompt'][:60]!r}: {first['message']}; "
            "the same command tries those again"
        )


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line, without empty lines, # comments and repetitions. Raises ConfigError."""
    try:
        text = read_regular(path, TEXT_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name a text file with one prompt a line") from None
    except RefusedError as error:
        raise ConfigError(f"{error}; name a text file with one prompt a line") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text; write one prompt a line") from None
    return listed(text.splitlines(), str(path))


def listed(lines: Sequence[str], source: str) -> list[str]:
    """Lines as prompts, each as a run keeps it: empty lines, # comments and repetitions left out. Raises ConfigError."""
    words = (plain_prompt(line) for line in lines)
    prompts = list(dict.fromkeys(line for line in words if line and not line.startswith("#")))
    if not prompts:
        raise ConfigError(f"{source} holds no prompt; write one a line, as in: a red armchair")
    if len(prompts) > MAX_PROMPTS:
        raise ConfigError(f"{source} holds {len(prompts)} prompts, the limit is {MAX_PROMPTS}; split it")
    return prompts


def refuse_without_worker() -> None:
    """Raise StageError when no server runs for this store, or no worker would take a run."""
    if prefect_url() is None:
        raise StageError("no Prefect server runs for this store", None, "dreampolish up starts one, with a worker")
    if workers_online() == 0:
        raise StageError("no worker is up, so no run would begin", None, "dreampolish up starts one")


def workers_online() -> int:
    """How many workers serve our pool now; 0 when there is no pool."""
    with get_client(sync_client=True) as client:
        return len(online_workers(client))


def earlier_runs(store: Path, config: Config, prompts: Collection[str]) -> dict[str, RunRecord]:
    """By prompt, of those asked for: the run that these settings had before, a finished one if there is one."""
    found, wanted = dict[str, RunRecord](), {None, *prompts}
    for path in newest_records(store, fresh=True):
        with suppress(StageError, OSError):
            if noted_prompt(path) not in wanted:
                continue
            record = read_record(store, path.stem)
            comparable = record.config == config and record.image is None and record.mesh is None and record.parent_run is None
            if comparable and (record.prompt not in found or (finished(record) and not finished(found[record.prompt]))):
                found[record.prompt] = record
    return found


def finished(record: RunRecord) -> bool:
    """Whether a run's asset is there: in its output folder or, where another machine may have written that, in the shared store."""
    if record.output is None:
        return False
    return _is_here(record) or (shared_url() is not None and "export" in record.stages)


def _is_here(record: RunRecord) -> bool:
    return record.output is not None and (Path(record.output) / "asset.glb").is_file()


def gathered(store: Path, record: RunRecord) -> str:
    """The output folder of a finished run on this machine, written from the shared store where another machine made the asset.

    Raises StageError where that cannot be done.
    """
    return (record if _is_here(record) else write_output(record, store_at(store), OUTPUTS)).output or ""


POLL_S = 2.0
WORKER_CHECK_S = 60.0
ATTEMPTS = 3
"""At one prompt, where the process or the machine of a run dies; its stages go on from what the store has."""
UNFINISHED = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]
DEPLOYMENT = "dreampolish/full"


@dataclass
class Entry:
    """One prompt. run: our run's id; flow_run: the deployed run that computes it."""

    prompt: str
    run: str = ""
    flow_run: UUID | None = None
    attempts: int = 0
    outcome: Outcome | None = None
    message: str = ""
    """What went wrong, or the output folder."""

    def end(self, outcome: Outcome, message: str) -> None:
        """Note how it ended."""
        self.outcome, self.message = outcome, message


@flow(name="dreampolish", flow_run_name="batch", persist_result=False, log_prints=False)
@at_work
def batch(
    prompts: Annotated[list[str], Field(min_length=1, max_length=10 * MAX_PROMPTS)],
    preset: Preset = "home",
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Run every prompt of a list and sum up. Raises BatchIncompleteError when some have no asset,
    ConfigError or StageError for what cannot begin."""
    texts = listed(prompts, "the list")
    refuse_without_worker()
    store, changes = store_folder(), override_lines(overrides)
    entries = prepared(store, texts, preset, changes)
    with get_client(sync_client=True) as client:
        fit_queue(client)
        try:
            submit(client, entries, preset)
            wait(client, store, entries, preset)
        except BaseException as error:
            with suppress(Exception):
                # Without a server there is nothing to take back.
                cancel_waiting(client, entries)
            if not isinstance(error, StoppedError):
                say("runs that a worker has begun go on")
            raise
    result = summed_up(entries)
    create_table_artifact(key="batch", table=result["prompts"], description=f"{len(entries)} prompts, preset {preset}")
    if result["failed"]:
        raise BatchIncompleteError(result)
    return result


def prepared(store: Path, prompts: Sequence[str], preset: str, overrides: Sequence[str]) -> list[Entry]:
    """An entry for each prompt: with the run to go on with, or ended where the asset is there or the prompt is refused.

    Raises ConfigError for settings that would fail every run.
    """
    config = load_config(preset, CONFIGS, overrides)
    check_priors(config)
    earlier, entries = earlier_runs(store, config, prompts), []
    for prompt in prompts:
        entry, record = Entry(prompt), earlier.get(prompt)
        entries.append(entry)
        if record is not None:
            entry.run = record.run
            if finished(record):
                _end_with_output(store, entry, record, "skipped")
            continue
        try:
            entry.run = new_run(store=store, prompt=prompt, preset=preset, overrides=overrides, image=None).run
        except ConfigError as error:
            entry.end("failed", str(error))
    return entries


def fit_queue(client: SyncPrefectClient) -> None:
    """Let at least as many runs go at once as there are workers."""
    queue = client.read_work_queue_by_name(RUN_QUEUE, work_pool_name=POOL)
    workers = len(online_workers(client))
    if queue.concurrency_limit is not None and queue.concurrency_limit < workers:
        client.update_work_queue(queue.id, concurrency_limit=workers)


def submit(client: SyncPrefectClient, entries: Sequence[Entry], preset: str) -> None:
    """Hand every run that is still to be made to the workers, or take hold of the one that goes on already."""
    for entry in entries:
        if entry.outcome is None:
            entry.flow_run = _going_on(client, entry.run) or submitted(entry, preset)


def _going_on(client: SyncPrefectClient, run: str) -> UUID | None:
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[_tag(run)]),
            state=FlowRunFilterState.model_validate({"type": {"any_": UNFINISHED}}),
        ),
        limit=1,
    )
    return found[0].id if found else None


def submitted(entry: Entry, preset: str) -> UUID:
    """Hand a prompt's run to the workers, or once more after a crash; the flow run's id."""
    entry.attempts += 1
    made: Any = run_deployment(
        DEPLOYMENT,
        parameters={"prompt": entry.prompt, "preset": preset, "run": entry.run},
        timeout=0,
        flow_run_name=entry.prompt[:80],
        tags=[_tag(entry.run)],
        # A request that is repeated, for its answer was lost, makes no second run.
        idempotency_key=f"{entry.run}-{uuid4()}",
    )
    return UUID(str(made.id))


def wait(client: SyncPrefectClient, store: Path, entries: Sequence[Entry], preset: str = "home") -> None:
    """Wait until every run has ended, naming each as it does, and say once when no worker is up.

    A run whose process or machine died is handed out again.
    """
    by_flow_run = {entry.flow_run: entry for entry in entries if entry.outcome is None and entry.flow_run is not None}
    say(f"{len(entries)} prompts, {len(entries) - len(by_flow_run)} of them need no run")
    server, checked, warned = Patience(store), time.monotonic(), False
    while by_flow_run:
        with server.waits_for_an_answer():
            for run in _ended(client, list(by_flow_run)):
                entry = by_flow_run[run.id]
                if run.state is not None and run.state.is_crashed() and entry.attempts < ATTEMPTS:
                    say(f"again   {entry.prompt[:60]}: its process is gone, another goes on with it")
                    entry.flow_run = submitted(entry, preset)
                    by_flow_run[entry.flow_run] = entry
                else:
                    _note_end(store, entry, run)
                    say(f"{entry.outcome:<7} {entry.prompt[:60]}: {entry.message}")
                del by_flow_run[run.id]
            if time.monotonic() - checked > WORKER_CHECK_S:
                checked = time.monotonic()
                crash_lost_runs(client, store, list(by_flow_run))
                if not warned and not online_workers(client):
                    warned = True
                    say("no worker is up, the runs wait; dreampolish up starts one")
        if by_flow_run:
            time.sleep(POLL_S)


def _ended(client: SyncPrefectClient, identities: Sequence[UUID]) -> list[FlowRun]:
    """Those of the flow runs that have ended."""
    found: list[FlowRun] = []
    for start in range(0, len(identities), 200):
        some = FlowRunFilter(id=FlowRunFilterId(any_=list(identities[start : start + 200])))
        found += [run for run in client.read_flow_runs(flow_run_filter=some, limit=200) if run.state and run.state.is_final()]
    return found


def _note_end(store: Path, entry: Entry, run: FlowRun) -> None:
    try:
        record = read_record(store, entry.run)
    except StageError as error:
        entry.end("failed", str(error))
        return
    if run.state is not None and run.state.is_completed() and finished(record):
        _end_with_output(store, entry, record, "done")
    else:
        entry.end("failed", _reason(run))


def _end_with_output(store: Path, entry: Entry, record: RunRecord, outcome: Outcome) -> None:
    try:
        entry.end(outcome, gathered(store, record))
    except StageError as error:
        entry.end("failed", f"its asset is in the store, and cannot be written here: {error}")


def _reason(run: FlowRun) -> str:
    """Why a run has no asset: our own one-line errors as they are, everything else after the state's name."""
    name, message = (run.state.name or "", run.state.message or "") if run.state else ("Lost", "")
    words = " ".join(message.split())[:300]
    own = re.fullmatch(r"Flow run encountered an exception: (?:StageError|ConfigError): (.*)", words)
    return own[1] if own is not None else f"{name}: {words}"


def cancel_waiting(client: SyncPrefectClient, entries: Sequence[Entry]) -> None:
    """Take back the runs that no worker has begun; those that go on end by themselves."""
    left = [entry.flow_run for entry in entries if entry.outcome is None and entry.flow_run is not None]
    for identity in left:
        state = client.read_flow_run(identity).state
        if state is not None and state.is_scheduled():
            client.set_flow_run_state(identity, Cancelled(message="its batch was stopped"))


def summed_up(entries: Sequence[Entry]) -> dict[str, Any]:
    """What `--json` prints."""
    rows = [{"prompt": e.prompt, "run": e.run, "outcome": e.outcome, "message": e.message} for e in entries]
    counts = {name: sum(row["outcome"] == name for row in rows) for name in ("done", "skipped")}
    return {"prompts": rows, **counts, "failed": [row for row in rows if row["outcome"] == "failed"]}


def _tag(run: str) -> str:
    return f"run:{run}"
