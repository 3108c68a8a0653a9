"""The signed distance field as an artifact's file: what neus writes and later stages read."""

from safetensors.torch import load_file

from dreampolish.fields.sdf import SdfField, sdf_field_from_config
from schemas.artifacts import SdfArtifact
from stages.context import Stage


def load_sdf(stage: Stage, neus: SdfArtifact) -> SdfField:
    """The field of a neus artifact on the stage's device, without gradients."""
    field = sdf_field_from_config(dict(neus.field_config), stage.device)
    field.load_state_dict(load_file(stage.locate(neus, neus.field), device=str(stage.device)))
    return field.requires_grad_(False)
