"""The flow `texture`: texture and export of an earlier run's geometry, as a new run beside it."""

from typing import Any

from prefect import flow

from flows.chain import compute
from flows.lines import say, summary
from flows.runs import derived_run
from schemas.artifacts import StageName
from schemas.runs import STAGES
from stages.disk import store_folder
from stages.run_record import read_record

TEXTURE_STAGES: tuple[StageName, ...] = ("texture", "export")
GEOMETRY_STAGES = tuple(name for name in STAGES if name not in TEXTURE_STAGES)


@flow(name="texture", persist_result=False, log_prints=False)
def texture(run: str, overrides: list[str] | None = None, refresh: bool = False, show_progress: bool = False) -> dict[str, Any]:
    """Texture a run's mesh anew. Settings changed upstream are named as stale; `refresh` computes those stages too."""
    store = store_folder()
    record, stale = derived_run(store, run, overrides or [], GEOMETRY_STAGES, reuse_stale=not refresh)
    if stale and not refresh:
        say(f"stale: {', '.join(stale)} (settings changed, the earlier result is used; --refresh computes it)")
    stages = STAGES if refresh else TEXTURE_STAGES
    return summary(compute(read_record(store, record.run), store, stages, show_progress))
