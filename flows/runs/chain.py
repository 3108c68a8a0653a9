"""Which function computes a stage."""

from schemas.artifacts import StageName
from schemas.runs import STAGES
from stages.runtime.command import StageFunction


def stage_function(name: StageName) -> StageFunction:
    """A stage's function (a Prefect task); its module is imported now, not before."""
    match name:
        case "reference":
            from stages.reference import make_reference

            return make_reference
        case "nerf":
            from stages.nerf import fit_nerf

            return fit_nerf
        case "neus":
            from stages.neus import refine_sdf

            return refine_sdf
        case "dmtet":
            from stages.dmtet import extract_mesh

            return extract_mesh
        case "polish":
            from stages.polish import polish_mesh

            return polish_mesh
        case "texture":
            from stages.texture import paint_texture

            return paint_texture
        case "export":
            from stages.export import export_asset

            return export_asset


def load_stages() -> None:
    """Import every stage's module, which takes some seconds, ahead of its use."""
    for name in STAGES:
        stage_function(name)
