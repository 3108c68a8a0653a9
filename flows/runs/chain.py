"""The chain as a table: which stage has which name."""

from collections.abc import Mapping

from schemas.artifacts import StageName
from stages.dmtet import extract_mesh
from stages.export import export_asset
from stages.intake import take_in_mesh
from stages.nerf import fit_nerf
from stages.neus import refine_sdf
from stages.polish import polish_mesh
from stages.reference import make_reference
from stages.runtime.command import AnyStage
from stages.texture import paint_texture

CHAIN: Mapping[StageName, AnyStage] = {
    stage.name: stage
    for stage in (
        take_in_mesh,
        make_reference,
        fit_nerf,
        refine_sdf,
        extract_mesh,
        polish_mesh,
        paint_texture,
        export_asset,
    )
}
"""Every stage, in order; the first one is that of a user's own mesh."""
