"""How a run uses a GPU's memory. Results differ by rounding alone, so nothing of it enters a key."""

from pydantic import Field, FiniteFloat

from schemas.artifacts import StageName
from schemas.base import Frozen

CARDS_GIB = (8, 12, 16, 24, 48, 80)
"""GiB that cards have."""


class Execution(Frozen):
    """How one stage computes. None stands for: all at once."""

    views_at_once: int | None = Field(default=None, ge=1)
    """Pictures whose graph is kept at once: through an encoder, through a LoRA's network, of a mesh that is rendered again."""
    rows_at_once: int | None = Field(default=None, ge=1)
    """Pictures that a prior's networks see at once where no graph is kept."""
    points_at_once: int | None = Field(default=None, ge=1)
    """Samples of a volume whose features are kept at once."""
    checkpoint_encoder: bool = False
    """Whether an encoder's inner layers are computed again on the way back."""
    checkpoint_adapter: bool = False
    """The same of the network under the LoRA."""
    checkpoint_renders: bool = False
    """Whether a mesh is rendered again on the way back, `views_at_once` pictures at a time."""
    towers_on_cpu: bool = False
    """Whether text and picture towers go to the CPU when they have read."""

    @property
    def rendered_at_once(self) -> int | None:
        """Pictures of a mesh that are rendered at once and again on the way back; None: all, once."""
        return (self.views_at_once or 1) if self.checkpoint_renders else None


NO_PLAN = Execution()


class StagePlan(Frozen):
    """A stage's share of a plan: how it computes, and what that takes."""

    execution: Execution
    kept: dict[str, FiniteFloat]
    """GiB of what is there all the time, by name."""
    moments: dict[str, FiniteFloat]
    """GiB that come on top, by what is done; the largest counts."""
    on_cpu: dict[str, FiniteFloat] = {}
    """GiB of networks that run on the CPU (ONNX) and take nothing of the card, by name."""
    total_gib: FiniteFloat = Field(ge=0)
    """GiB in all, with what the allocator rounds up."""


class MemoryPlan(Frozen):
    """What all stages of a run take of a GPU. asked: whether the user named the limit."""

    limit_gib: FiniteFloat = Field(gt=0)
    asked: bool
    stages: dict[StageName, StagePlan]

    def of(self, stage: StageName) -> Execution:
        """How a stage computes."""
        return self.stages[stage].execution if stage in self.stages else NO_PLAN
