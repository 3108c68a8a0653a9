"""The flow `texture`: texture and export of an earlier run's geometry, as a new run beside it."""

from typing import Any

from prefect import flow

from flows.runs.console import say
from flows.runs.create import derived_run
from flows.runs.parameters import Overrides, RunId, override_lines
from flows.service.marks import at_work
from flows.text_to_3d import OpenRun, open_run
from schemas.artifacts import PolishedMeshArtifact, ReferenceArtifact, StageName
from schemas.runs import STAGES, RunRecord
from stages.dmtet import extract_mesh
from stages.export import export_asset
from stages.nerf import fit_nerf
from stages.neus import refine_sdf
from stages.polish import polish_mesh
from stages.reference import make_reference
from stages.runtime.command import open_recorded, picture_of
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
        reference, polished = _geometry(this, record)
        textured = paint_texture(this.context, reference, polished, this.config.texture)
        export_asset(this.context, reference, textured, this.config.export)
        return this.written()


def _geometry(this: OpenRun, record: RunRecord) -> tuple[ReferenceArtifact, PolishedMeshArtifact]:
    """The earlier run's reference and mesh; computed where the run is to compute all of its stages."""
    context, config = this.context, this.config
    if record.computes is not None:
        return (
            open_recorded(ReferenceArtifact, record, context.store),
            open_recorded(PolishedMeshArtifact, record, context.store),
        )
    reference = make_reference(context, record.prompt, picture_of(record, context.store), config.reference)
    nerf = fit_nerf(context, reference, config.nerf)
    sdf = refine_sdf(context, reference, nerf, config.neus)
    mesh = extract_mesh(context, reference, sdf, config.dmtet)
    return reference, polish_mesh(context, reference, mesh, config.polish)
