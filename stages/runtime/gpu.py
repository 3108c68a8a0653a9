"""A GPU's memory as a stage's figures, and the line that tells that it did not suffice."""

from schemas.artifacts import Artifact, StageName
from schemas.plans import CARDS_GIB
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError

GIB = 2**30


def memory_figures(name: StageName, run: RunContext, artifact: Artifact, *, is_new: bool) -> dict[str, float]:
    """GiB that a stage's tensors took of a GPU, and what the plan had for all of it; nothing on a CPU. is_new: whether this run, with
    its plan, computed it."""
    if not artifact.cuda_peak_memory:
        return {}
    planned = run.plan.stages[name].total_gib if is_new and run.plan is not None and name in run.plan.stages else None
    return {"cuda_peak_gib": artifact.cuda_peak_memory / GIB} | ({} if planned is None else {"cuda_planned_gib": planned})


def out_of_memory(name: StageName, run: RunContext) -> StageError:
    """CUDA ran out of memory in a stage: what to resume the run with."""
    planned = "without a plan" if run.plan is None else f"planned for {run.plan.limit_gib:.1f} GiB"
    smaller = [size for size in CARDS_GIB if run.plan is None or size < run.plan.limit_gib - 0.5]
    if run.plan is None or smaller:
        size = 8 if run.plan is None else smaller[-1]
        remedy = f"dreampolish resume {run.run_id} --vram {size} goes on in smaller parts, with what is finished"
    else:
        remedy = "close what else uses the card, or work at half the size in a new run: --set priors.text.image_size=256"
    return StageError(f"{name} ran out of CUDA memory, {planned}", None, remedy)
