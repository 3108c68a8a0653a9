"""A run: one small JSON that names its settings and the artifacts it led to."""

from typing import Literal, get_args

from pydantic import Field, FiniteFloat

from schemas.artifacts import StageName
from schemas.base import Frozen
from schemas.config.run import PROMPT_LIMIT, Config
from schemas.plans import MemoryPlan

StageState = Literal["computed", "cached", "resumed"]

STAGES: tuple[StageName, ...] = get_args(StageName)[1:]
"""The chain, in order."""

MESH_STAGES: tuple[StageName, ...] = ("intake", "reference", "texture", "export")
"""The chain of a run that begins with a user's mesh."""

ALL_STAGES: tuple[StageName, ...] = get_args(StageName)
"""Every stage, in an order in which each comes behind those that it reads."""


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
    mesh: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of an archive of the mesh with all that it names; such a run paints and exports it, and makes no shape."""
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
    def chain(self) -> tuple[StageName, ...]:
        """The stages that the run has or will have, in order."""
        return STAGES if self.mesh is None else MESH_STAGES
