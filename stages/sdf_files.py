"""The fields of the nerf and neus stages as artifacts' files: what later stages and measurements read."""

from safetensors.torch import load_file

from dreampolish.cameras import SCENE_HALF_SIZE
from dreampolish.fields.density import DensityField, density_field_from_config
from dreampolish.fields.sdf import SdfField, sdf_field_from_config
from dreampolish.renderers.sampling import OccupancyGrid
from schemas.artifacts import FileRef, NerfArtifact, SdfArtifact
from stages.artifact_files import ArtifactFiles


def load_density(files: ArtifactFiles, nerf: NerfArtifact) -> DensityField:
    """The field of a nerf artifact on the reader's device, without gradients."""
    field = density_field_from_config(dict(nerf.field_config), files.device)
    field.load_state_dict(load_file(files.locate(nerf, nerf.field), device=str(files.device)))
    return field.requires_grad_(False)


def load_sdf(files: ArtifactFiles, neus: SdfArtifact) -> SdfField:
    """The field of a neus artifact on the reader's device, without gradients."""
    field = sdf_field_from_config(dict(neus.field_config), files.device)
    field.load_state_dict(load_file(files.locate(neus, neus.field), device=str(files.device)))
    return field.requires_grad_(False)


def load_occupancy(files: ArtifactFiles, artifact: NerfArtifact | SdfArtifact, reference: FileRef) -> OccupancyGrid:
    """An artifact's occupancy grid over the scene box, on the reader's device."""
    state = load_file(files.locate(artifact, reference), device=str(files.device))
    occupancy = OccupancyGrid(round(len(state["occupied"]) ** (1 / 3)), SCENE_HALF_SIZE, files.device)
    occupancy.load_state_dict(state)
    return occupancy
