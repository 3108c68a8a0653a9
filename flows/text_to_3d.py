"""The flow `dreampolish`: seven stages in a row, from a prompt or a picture to an asset."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.chain import compute, stages_of
from flows.runs.console import summary
from flows.runs.create import new_run
from flows.runs.parameters import Overrides, Preset, Prompt, RunId, override_lines
from flows.service.marks import at_work
from stages.runtime.files import store_folder
from stages.runtime.records import read_record


@flow(name="dreampolish", flow_run_name="{prompt}", persist_result=False, log_prints=False)
@at_work
def text_to_3d(
    prompt: Prompt,
    preset: Preset = "home",
    overrides: Overrides = None,
    image: Path | None = None,
    run: RunId | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Make an asset; `run` continues a run that exists, with its own prompt, settings and stages. Returns what `--json` prints."""
    store = store_folder()
    record = new_run(store, prompt, preset, override_lines(overrides), image) if run is None else read_record(store, run)
    return summary(compute(record, store, stages_of(record), show_progress))
