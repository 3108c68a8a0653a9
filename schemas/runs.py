"""A run: one small JSON that names its settings and the artifacts it led to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, FiniteFloat

from schemas.artifacts import StageName
from schemas.base import Frozen
from schemas.config.run import PROMPT_LIMIT, Config
from schemas.plans import MemoryPlan

StageState = Literal["computed", "cached", "resumed"]

STAGES: tuple[StageName, ...] = get_args(StageName)[1:]
"""The chain, in order."""

MeshUse = Literal["texture", "polish", "start"]
"""What a run does with a user's mesh: paint it; polish it, and paint it if asked; or begin its own shape with it."""

MESH_STAGES: Mapping[MeshUse, tuple[StageName, ...]] = {
    "texture": ("intake", "reference", "texture", "export"),
    "polish": ("intake", "reference", "polish", "texture", "export"),
    "start": ("intake", "reference", "neus", "dmtet", "polish", "texture", "export"),
}
"""The chains of runs that begin with a user's mesh."""

ALL_STAGES: tuple[StageName, ...] = get_args(StageName)
"""Every stage, in an order in which each comes behind those that it reads."""

TITLES: dict[StageName, str] = {
    **{name: name.capitalize() for name in ALL_STAGES},
    "intake": "As it came",
    "nerf": "NeRF",
    "neus": "NeuS",
    "dmtet": "DMTet",
    "polish": "Polished",
    "texture": "Textured",
    "export": "Asset",
}
"""What pages call the stages."""


MOST_PICTURES = 12
"""Pictures of one object, the front's included."""
HIGHEST_PICTURE_DEG = 60.0
"""Largest elevation, up or down, that a picture may be taken from, degrees."""
Azimuth = Annotated[float, Field(ge=-180.0, le=180.0, allow_inf_nan=False)]
Elevation = Annotated[float, Field(ge=-HIGHEST_PICTURE_DEG, le=HIGHEST_PICTURE_DEG, allow_inf_nan=False)]


class OtherPicture(Frozen):
    """A user's picture from elsewhere than the front, by its hash, and where it was taken from, degrees."""

    image: str = Field(pattern=r"^[0-9a-f]{64}$")
    azimuth_deg: Azimuth
    elevation_deg: Elevation


class PosedFile(NamedTuple):
    """The file of such a picture."""

    path: Path
    azimuth_deg: float
    elevation_deg: float


class StageRecord(Frozen):
    """How one stage of a run went."""

    name: StageName
    state: StageState
    seconds: FiniteFloat = Field(ge=0)
    """Of this run: near 0 when cached."""
    fingerprint: str
    metrics: dict[str, FiniteFloat]
    """Of the artifact and of its scores."""
    scores: str | None = None
    """The key of its scores, for stages that have some."""


class RunRecord(Frozen):
    """store/runs/<id>.json. `image` and `mesh` are the hashes of a user's picture and mesh, kept in store/inputs/."""

    schema_version: Literal[1] = 1
    run: str = Field(pattern=r"^[a-z0-9]{8,32}$")
    prompt: str = Field(min_length=1, max_length=PROMPT_LIMIT)
    image: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    others: tuple[OtherPicture, ...] = Field(default=(), max_length=MOST_PICTURES - 1)
    """More of the user's pictures, kept as `image` is."""
    mesh: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of an archive of the mesh with all that it names."""
    mesh_use: MeshUse = "texture"
    config: Config
    created: str
    """UTC, ISO 8601."""
    parent_run: str | None = None
    """The run whose geometry this one reuses."""
    computes: tuple[StageName, ...] | None = None
    """The stages that belong to this run; the others are the parent run's, and stay so when this one is resumed. None: all."""
    plan: MemoryPlan | None = None
    """How a GPU's memory is used; None: no plan, on a CPU."""
    output: str | None = None
    """The output folder, once the asset lies there; absolute, but on disk relative to the folder that the record's file belongs to."""
    stages: dict[StageName, StageRecord] = {}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Hashes of all that the user gave: pictures, mesh."""
        given = (self.image, *(picture.image for picture in self.others), self.mesh)
        return tuple(digest for digest in given if digest is not None)

    @property
    def chain(self) -> tuple[StageName, ...]:
        """The stages that the run has or will have, in order."""
        return STAGES if self.mesh is None else MESH_STAGES[self.mesh_use]

    def sees_mesh(self, stage: StageName) -> bool:
        """Whether a stage that can read the user's mesh does so in this run.

        Where the mesh is a start alone, the shape becomes another: then the conversion reads it, and a reference that is drawn.
        """
        if self.mesh is None:
            return False
        return self.mesh_use != "start" or stage == "neus" or (stage == "reference" and self.image is None)
