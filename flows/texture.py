"""The flow `texture`: texture and export of an earlier run's geometry, as a new run beside it."""

from typing import Any

from prefect import flow

from flows.chain import compute, stages_of
from flows.runs.console import say, summary
from flows.runs.create import derived_run
from flows.runs.parameters import Overrides, RunId, override_lines
from flows.service.marks import at_work
from schemas.artifacts import StageName
from schemas.runs import STAGES
from stages.runtime.files import store_folder

TEXTURE_STAGES: tuple[StageName, ...] = ("texture", "export")
GEOMETRY_STAGES = tuple(name for name in STAGES if name not in TEXTURE_STAGES)


@flow(name="dreampolish", flow_run_name="texture of {run}", persist_result=False, log_prints=False)
@at_work
def texture(run: RunId, overrides: Overrides = None, refresh: bool = False, show_progress: bool = False) -> dict[str, Any]:
    """Texture a run's mesh anew. What has changed upstream is named as stale; `refresh` computes those stages too."""
    store = store_folder()
    record, stale = derived_run(store, run, override_lines(overrides), GEOMETRY_STAGES, reuse_stale=not refresh)
    if stale and not refresh:
        say(f"stale: {', '.join(stale)} (settings or code changed, the earlier result is used; --refresh computes it)")
    return summary(compute(record, store, stages_of(record), show_progress))
