"""The flow `dreampolish`: seven stages in a row, from a prompt or a picture to an asset."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.chain import compute
from flows.lines import summary
from flows.runs import new_run
from schemas.config import PROMPT_LIMIT
from schemas.runs import STAGES
from stages.disk import store_folder
from stages.run_record import read_record


@flow(name="dreampolish", persist_result=False, log_prints=False)
def text_to_3d(
    prompt: Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT)],
    preset: str = "home",
    overrides: list[str] | None = None,
    image: Path | None = None,
    run: str | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Make an asset; `run` continues a run that exists, with its own prompt and settings. Returns what `--json` prints."""
    store = store_folder()
    record = new_run(store, prompt, preset, overrides or [], image) if run is None else read_record(store, run)
    return summary(compute(record, store, STAGES, show_progress))
