"""A run: one small JSON that names its settings and the artifacts it led to."""

from typing import Literal, get_args

from pydantic import Field, FiniteFloat

from schemas.artifacts import StageName
from schemas.base import Frozen
from schemas.config.run import PROMPT_LIMIT, Config

StageState = Literal["computed", "cached", "resumed"]

STAGES: tuple[StageName, ...] = get_args(StageName)
"""The chain, in order."""


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
    """store/runs/<id>.json. `image` is the hash of a user's picture, kept in store/inputs/."""

    schema_version: Literal[1] = 1
    run: str = Field(pattern=r"^[a-z0-9]{8,32}$")
    prompt: str = Field(min_length=1, max_length=PROMPT_LIMIT)
    image: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    config: Config
    created: str
    """UTC, ISO 8601."""
    parent_run: str | None = None
    """The run whose geometry this one reuses."""
    computes: tuple[StageName, ...] | None = None
    """The stages that belong to this run; the others are the parent run's, and stay so when this one is resumed. None: all."""
    output: str | None = None
    """The output folder, once the asset lies there; absolute, but on disk relative to the folder that the record's file belongs to."""
    stages: dict[StageName, StageRecord] = {}
