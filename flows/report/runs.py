"""Runs opened for a report: from a record in the store to the facts that a page tells."""

from pathlib import Path

from flows.report.facts import RunFacts, facts_of_run
from flows.runs import slug_from_prompt
from schemas.runs import STAGES, RunRecord
from stages.entry import open_recorded
from stages.errors import StageError
from stages.store import LocalStore

MAX_SIDE = 320
"""Pixels of a turntable's views on a page of one run."""
COMPARED_SIDE = 224
"""The same on a page of several."""


def open_facts(record: RunRecord, store: Path, max_side: int) -> RunFacts:
    """What a page tells of a run, every file verified. Raises StageError for a run without results or with damaged ones."""
    if not record.stages:
        raise StageError(f"run {record.run} has no results yet", None, f"dreampolish resume {record.run}")
    artifacts = {name: open_recorded(name, record, store) for name in STAGES if name in record.stages}
    return facts_of_run(record, artifacts, LocalStore(store), max_side)


def output_folder(record: RunRecord, outputs: Path) -> Path:
    """The run's folder for its user: where it was written, or would be."""
    if record.output is not None and Path(record.output).is_dir():
        return Path(record.output)
    return outputs / f"{slug_from_prompt(record.prompt)}-{record.run}"
