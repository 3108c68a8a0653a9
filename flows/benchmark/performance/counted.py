"""A run's work in its priors' networks, counted and not measured: no network has numbers, no step is done.

What a stage asks of its priors follows from its settings, step by step. Rendering, hash grids, unwrapping and export are not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.rehearsal.architectures import Family
from dreampolish.priors.rehearsal.operations import NetworkFlop, adapter_flop, network_flop
from flows.benchmark.performance.rehearsal import Width, write_models
from flows.runs.memory.plan import planned
from flows.runs.memory.priors import counted_priors
from schemas.artifacts import StageName
from schemas.config.presets import load_config
from schemas.config.run import Config
from schemas.config.shared.geometry import GeometryConfig, VolumeConfig
from schemas.config.shared.guidance import ViewTargetsConfig
from schemas.runs import STAGES
from stages.guidance.objectives import needs_variational
from stages.guidance.rhythm import guided_views, renders_novel
from stages.polish import AGREEMENT_VIEWS
from stages.runtime.files import CONFIGS

SUSTAINED_TFLOPS = 50.0
"""What a card of 24 GB keeps up in halves on networks like these, 10^12 operations a second; not measured here. [choice]"""
COUNTED: tuple[StageName, ...] = ("reference", "nerf", "neus", "dmtet", "polish", "texture")


@dataclass(frozen=True)
class CountedStage:
    """One stage. pflop: 10^15 operations in networks. seconds: what those take at the rate asked for. planned_gib: of CUDA memory."""

    name: StageName
    pflop: float
    seconds: float
    planned_gib: float


def counted(
    preset: str, overrides: Sequence[str], width: Width, family: Family, *, vram: float, tflops: float
) -> list[CountedStage]:
    """Count a preset on real architectures. vram: GiB to plan for. tflops: 10^12 operations a second. ConfigError where it cannot fit."""
    with TemporaryDirectory(prefix="dreampolish-counted-") as name:
        sources = write_models(Path(name), width, family, "holes")
        config, plan = planned(load_config(preset, CONFIGS, ["device=cpu", *sources, *overrides]), vram, STAGES)
        done = operations(config)
    return [CountedStage(each, done[each] / 1e15, done[each] / tflops / 1e12, plan.stages[each].total_gib) for each in COUNTED]


def operations(config: Config) -> dict[StageName, float]:
    """Operations in networks, by stage. PriorError where a prior cannot be opened."""
    sizes = {role: each.image_size for role, each in counted_priors(config).by_role.items() if each.image_size}
    places = {role: PriorSource(getattr(config.priors, role).source, getattr(config.priors, role).revision) for role in sizes}
    flop: dict[str, NetworkFlop] = {role: network_flop(places[role], size) for role, size in sizes.items() if role != "views"}
    learned = adapter_flop(places["text"], sizes["text"], config.texture.lora_rank)
    geometry = {name: _geometry(getattr(config, name), flop) for name in ("nerf", "neus", "dmtet")}
    return {
        "reference": _reference(config, flop),
        "nerf": geometry["nerf"],
        "neus": geometry["neus"],
        "dmtet": geometry["dmtet"],
        "polish": (config.polish.steps * config.polish.views + 2 * AGREEMENT_VIEWS)
        * _normals(config, flop, config.polish.estimator_steps),
        "texture": _texture(config, flop, learned),
    }


def _reference(config: Config, flop: Mapping[str, NetworkFlop]) -> float:
    """Candidates under two texts, and the normals of the chosen one."""
    section = config.reference
    drawing = section.n_candidates * (2 * section.sampling_steps * flop["text"].row + flop["text"].decode)
    return drawing + _normals(config, flop, section.normal_steps)


def _normals(config: Config, flop: Mapping[str, NetworkFlop], steps: int) -> float:
    """Of one picture."""
    each = flop["normals"]
    return each.encode + config.priors.normals.ensemble * (steps * each.row + each.decode)


def _geometry(config: GeometryConfig, flop: Mapping[str, NetworkFlop]) -> float:
    """Both priors on the novel views of all steps, and painted targets."""
    views = sum(guided_views(config, step)[0] for step in range(config.steps) if _is_guided(config, step))
    rivals = 0 if config.text.perp_neg_weight == 0 else 2 if config.text.view_prompts == "azimuth" else 1
    of_text = flop["text"].guided + (2 + rivals) * flop["text"].row if config.uses_text else 0
    of_view = flop["view"].guided + 2 * flop["view"].row if config.uses_view_alone else 0
    return views * (of_text + of_view) + _painted(config.targets, flop)


def _is_guided(config: GeometryConfig, step: int) -> bool:
    return renders_novel(config, step) if isinstance(config, VolumeConfig) else step % config.guidance_interval == 0


def _painted(config: ViewTargetsConfig, flop: Mapping[str, NetworkFlop]) -> float:
    """Views that the view prior paints whole, each alone."""
    if not config.wanted or "view" not in flop:
        return 0.0
    each = flop["view"]
    return len(config.paint_at) * config.n_views * (each.encode + 2 * config.sampling_steps * each.row + each.decode)


def _texture(config: Config, flop: Mapping[str, NetworkFlop], learned: int) -> float:
    """Scores under two texts, and, where there is a LoRA, its score and what it learns."""
    section, each = config.texture, flop["text"]
    domain = each.row + section.lora_steps * learned if needs_variational(section) else 0
    return section.steps * section.views * (each.guided + 2 * each.row + domain) + _painted(section.targets, flop)


def counted_table(found: Sequence[CountedStage]) -> list[str]:
    """A Markdown table, with the whole run in its last row."""
    lines = ["| stage | in networks, PFLOP | projected, min | planned CUDA memory, GiB |", "|---|---:|---:|---:|"]
    lines += [f"| {each.name} | {each.pflop:.1f} | {each.seconds / 60:.1f} | {each.planned_gib:.1f} |" for each in found]
    pflop, seconds = sum(each.pflop for each in found), sum(each.seconds for each in found)
    most = max(each.planned_gib for each in found)
    return [*lines, f"| whole run | {pflop:.0f} | {seconds / 60:.0f} | {most:.1f} |"]


def counted_figures(found: Sequence[CountedStage]) -> dict[str, Any]:
    """For `--json`."""
    return {"stages": [asdict(each) for each in found], "projected_seconds": sum(each.seconds for each in found)}
