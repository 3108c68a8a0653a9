"""Settings of the intake stage: a user's own mesh becomes what the texture stage paints."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.config.shared.geometry import GridConfig, PreviewConfig


class IntakeConfig(Frozen):
    """A user's mesh: read, turned upright, put into the scene, and its colours learned."""

    up: Literal["auto", "x", "y", "z"] = "auto"
    """The file's axis that points up; auto: as the file says, else z for STL and PLY and y for OBJ and OFF."""
    front_deg: float = Field(default=0.0, ge=-360.0, le=360.0)
    """Azimuth of the object's front in the file, degrees counter-clockwise from above; 0: +z where y is up, -y where z is."""
    metres_per_unit: float = Field(default=0.0, ge=0.0, le=1e6)
    """Metres of the file's unit; 0: as the file says, else 1."""
    only: str = Field(default="", max_length=200)
    """The one material that is painted, by its name or as #number; empty: all."""
    mend: bool = False
    """Whether the mesh is mended: faces turned outward, doubled and empty faces and crumbs dropped, holes filled."""
    tell_flaws: bool = False
    """Whether the mesh's flaws are told: holes, edges of more than two faces, faces turned inward, crumbs."""
    grid: GridConfig = GridConfig(n_levels=10, log2_table_size=17)
    """The colour field's hash grid."""
    color_points: int = Field(default=200_000, ge=1)
    """Places on the surface whose colours are learned."""
    color_fit_steps: int = Field(default=300, ge=0)
    """Steps in which they are learned."""
    color_fit_batch: int = Field(default=8192, ge=1)
    """Places in one step of that fit."""
    color_fit_lr: float = Field(default=0.01, gt=0.0)
    """Adam's learning rate of that fit."""
    preview: PreviewConfig = PreviewConfig()
    """The turntable of the mesh as it came."""
