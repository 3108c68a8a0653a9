"""The plan of a GPU's memory: for every stage the fastest way of computing that fits."""

from collections.abc import Iterator, Sequence

import torch

from dreampolish.priors.folders.source import PriorError
from flows.runs.memory.priors import GIB, CountedPriors, counted_priors
from flows.runs.memory.stages import PLANNED, Need, need_of, views_of
from schemas.artifacts import StageName
from schemas.config.presets import ConfigError, merged
from schemas.config.run import Config
from schemas.plans import CARDS_GIB, Execution, MemoryPlan, StagePlan
from stages.runtime.context import device_from_name

ROUNDED_UP = 1.15
"""What torch's allocator takes for tensors that come and go, as a multiple of their bytes. Not measured on a GPU. [choice]"""
OUTSIDE_GIB = 0.75
"""CUDA's context and the workspaces of its libraries. Not measured on a GPU. [choice]"""
ROWS_A_VIEW = 4
"""Pictures that networks see at once without a graph, for one whose graph is kept. [choice]"""
FEWER_POINTS = (2**18, 2**16)
"""Samples of a volume whose features are kept at once, where memory is scarce. [choice]"""
HALVES = "float16"


def free_gib(device: torch.device) -> float:
    """What a card has free now, GiB."""
    return torch.cuda.mem_get_info(device)[0] / GIB


def planned(config: Config, vram: float | None, chain: Sequence[StageName]) -> tuple[Config, MemoryPlan]:
    """The settings and the plan of a new run. vram: GiB, or None for what the card has free. chain: the run's stages.

    Networks that fit only in halves get `priors.precision=float16`, which is a setting and counts for results. Raises ConfigError in one
    line where nothing fits.
    """
    try:
        return config, plan_of(config, vram, chain)
    except ConfigError:
        if config.priors.precision != "float32":
            raise
    smaller = merged(config, {"priors": {"precision": HALVES}}, [])
    return smaller, plan_of(smaller, vram, chain)


def plan_of(config: Config, vram: float | None, chain: Sequence[StageName]) -> MemoryPlan:
    """The plan of a run with these settings as they are. Raises ConfigError in one line where it cannot fit."""
    limit = free_gib(device_from_name(config.device)) if vram is None else vram
    try:
        priors = counted_priors(config)
    except PriorError as error:
        raise ConfigError(f"a prior cannot be counted: {error}") from None
    names = [name for name in PLANNED if name in chain]
    found = {name: _fitting(name, config, priors, limit) for name in names}
    stages = {name: each for name, each in found.items() if each is not None}
    if len(stages) < len(names):
        raise ConfigError(_why_not(names, config, priors, limit))
    return MemoryPlan(limit_gib=limit, asked=vram is not None, stages=stages)


def _fitting(name: StageName, config: Config, priors: CountedPriors, limit: float) -> StagePlan | None:
    for execution in ways(views_of(name, config)):
        need = need_of(name, config, priors, execution)
        if total_gib(need) <= limit:
            return StagePlan(
                execution=execution,
                kept={part: size / GIB for part, size in need.kept.items()},
                moments={moment: size / GIB for moment, size in need.moments.items()},
                on_cpu={part: size / GIB for part, size in need.on_cpu.items()},
                total_gib=total_gib(need),
            )
    return None


def total_gib(need: Need) -> float:
    """What a stage takes of a card."""
    return (sum(need.kept.values()) + max(need.moments.values()) * ROUNDED_UP) / GIB + OUTSIDE_GIB


def ways(n_views: int) -> Iterator[Execution]:
    """Ways of computing, the fastest first: fewer views at once cost little, checkpoints a third of a pass, samples computed again more."""
    halved = [n_views]
    while halved[-1] > 1:
        halved.append((halved[-1] + 1) // 2)
    levels = ((False, False, None), (True, False, None), *((True, True, each) for each in FEWER_POINTS))
    for layers, renders, points in levels:
        for views in halved:
            yield Execution(
                views_at_once=views,
                rows_at_once=ROWS_A_VIEW * views,
                points_at_once=points,
                checkpoint_encoder=layers,
                checkpoint_adapter=layers,
                checkpoint_renders=renders,
                towers_on_cpu=True,
            )


def _why_not(names: Sequence[StageName], config: Config, priors: CountedPriors, limit: float) -> str:
    least = {name: min(total_gib(need_of(name, config, priors, way)) for way in ways(views_of(name, config))) for name in names}
    worst = max(least, key=least.__getitem__)
    fitting = next((size for size in CARDS_GIB if least[worst] <= size), None)
    halves = ", or --set priors.precision=float16" if config.priors.precision == "float32" else ""
    smaller = f"--set priors.text.image_size={priors.by_role['text'].image_size // 2}, a smaller model"
    remedy = smaller if fitting is None else f"a card of {fitting} GiB (--vram {fitting}), {smaller}"
    return (
        f"{worst} needs {least[worst]:.1f} GiB of CUDA memory at the least, and {limit:.1f} are allowed; use {remedy}{halves}"
    )
