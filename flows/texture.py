"""The flow `texture`: texture and export of an earlier run's geometry, as a new run beside it."""

from typing import Any

from prefect import flow

from flows.runs.console import say
from flows.runs.create import derived_run
from flows.runs.parameters import Overrides, RunId, override_lines
from flows.service.marks import at_work
from flows.text_to_3d import make_asset, open_run
from schemas.artifacts import PolishedMeshArtifact, ReferenceArtifact, StageName
from schemas.runs import STAGES
from stages.export import export_asset
from stages.runtime.command import open_recorded
from stages.runtime.files import store_folder
from stages.texture import paint_texture

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
    with open_run(record, store, show_progress=show_progress) as this:
        if record.computes is None:
            make_asset(this, record)
        else:
            reference = open_recorded(ReferenceArtifact, record, store)
            polished = open_recorded(PolishedMeshArtifact, record, store)
            textured = paint_texture(this.context, reference, polished, this.config.texture)
            export_asset(this.context, reference, textured, this.config.export)
        return this.written()
