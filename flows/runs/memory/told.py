"""A plan as lines for a reader."""

from collections.abc import Mapping

from flows.runs.console import say
from schemas.plans import Execution, MemoryPlan

LEAST_TOLD_GIB = 0.05
"""Parts below it are left out."""


def say_plan(plan: MemoryPlan | None) -> None:
    """Say a run's plan, where it has one."""
    for line in () if plan is None else told(plan):
        say(line)


def told(plan: MemoryPlan) -> list[str]:
    """The plan as lines: what each part takes, by stage."""
    source = "as asked" if plan.asked else "free on the card"
    lines = [f"CUDA memory, counted and not measured: {plan.limit_gib:.1f} GiB {source}"]
    for name, stage in plan.stages.items():
        top = max(stage.moments, key=stage.moments.__getitem__)
        kept = [f"{part} {size:.1f}" for part, size in stage.kept.items() if size >= LEAST_TOLD_GIB]
        parts = " + ".join([*kept, f"{top} {stage.moments[top]:.1f}"])
        lines.append(f"{name:<10} {stage.total_gib:5.1f} GiB: {parts}; {_manner(stage.execution)}{_elsewhere(stage.on_cpu)}")
    return lines


def _elsewhere(on_cpu: Mapping[str, float]) -> str:
    parts = ", ".join(f"{part} {size:.2f}" for part, size in on_cpu.items())
    return f"; on the CPU: {parts}" if parts else ""


def _manner(execution: Execution) -> str:
    views = execution.views_at_once
    words = [f"{views} view{'s' if views != 1 else ''} at once"]
    words += ["layers computed again"] if execution.checkpoint_encoder else []
    words += ["rendered again"] if execution.checkpoint_renders else []
    words += [f"{execution.points_at_once:,} samples at once"] if execution.points_at_once else []
    return ", ".join(words)
