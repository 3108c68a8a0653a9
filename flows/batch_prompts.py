"""A batch's prompts and what became of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from schemas.config import Config
from schemas.presets import ConfigError
from schemas.runs import RunRecord
from stages.errors import StageError
from stages.run_record import newest_records, read_record

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
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name a text file with one prompt a line") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text; write one prompt a line") from None
    return listed(text.splitlines(), str(path))


def listed(lines: Sequence[str], source: str) -> list[str]:
    """Lines as prompts: outer and double spaces, empty lines, # comments and repetitions left out. Raises ConfigError."""
    words = (" ".join(line.split()) for line in lines)
    prompts = list(dict.fromkeys(line for line in words if line and not line.startswith("#")))
    if not prompts:
        raise ConfigError(f"{source} holds no prompt; write one a line, as in: a red armchair")
    if len(prompts) > MAX_PROMPTS:
        raise ConfigError(f"{source} holds {len(prompts)} prompts, the limit is {MAX_PROMPTS}; split it")
    return prompts


def refuse_without_worker() -> None:
    """Raise StageError when no server runs for this store, or no worker would take a run."""
    from flows.services_setup import prefect_url

    if prefect_url() is None:
        raise StageError("no Prefect server runs for this store", None, "dreampolish up starts one, with a worker")
    if online_workers() == 0:
        raise StageError("no worker is up, so no run would begin", None, "dreampolish up starts one")


def online_workers() -> int:
    """How many workers serve our pool now; 0 when there is no pool."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.services_setup import POOL

    with get_client(sync_client=True) as client:
        try:
            workers = client.read_workers_for_work_pool(POOL)
        except ObjectNotFound:
            return 0
    return sum(worker.status == "ONLINE" for worker in workers)


def earlier_runs(store: Path, config: Config) -> dict[str, RunRecord]:
    """By prompt: the run that these settings had before, a finished one if there is one."""
    found: dict[str, RunRecord] = {}
    for path in newest_records(store):
        try:
            record = read_record(store, path.stem)
        except StageError:
            continue
        comparable = record.config == config and record.image is None and record.parent_run is None
        if comparable and (record.prompt not in found or (finished(record) and not finished(found[record.prompt]))):
            found[record.prompt] = record
    return found


def finished(record: RunRecord) -> bool:
    """Whether a run's asset is there."""
    return record.output is not None and (Path(record.output) / "asset.glb").is_file()
