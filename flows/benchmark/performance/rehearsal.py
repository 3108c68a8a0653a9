"""A rehearsal of a preset on real architectures with random numbers for weights: what a step costs, and what a whole run would.

Nothing that comes out is a picture of anything. Each stage does a few of its steps at their full sizes: schedules go by progress, so that
all that a stage does at any time is among them. A stage's other work (conversion, fits, unwrapping) is done whole.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from PIL import Image, ImageDraw

from dreampolish.priors.rehearsal.architectures import FULL, FULL_XL, TINY, TINY_XL, Family
from dreampolish.priors.rehearsal.clock import NetworkClock
from dreampolish.priors.rehearsal.folders import write_normals, write_text, write_view
from dreampolish.priors.rehearsal.weight_files import Content
from flows.runs.console import say
from flows.runs.create import check_priors, new_id, now, with_plan
from flows.runs.inputs import keep_image
from flows.runs.memory.told import say_plan
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError, load_config
from schemas.config.run import Config
from schemas.runs import STAGES, RunRecord
from stages.guidance.priors import open_text_prior
from stages.runtime.command import arguments_from_record
from stages.runtime.context import RunContext, context_of
from stages.runtime.files import CONFIGS
from stages.runtime.stage import Stage

Width = Literal["full", "tiny"]
STEPPED: tuple[StageName, ...] = ("nerf", "neus", "dmtet", "polish", "texture")
PERIOD, WARM_UP = 2, 2
"""Steps after which a stage does the same again (reference and guidance alternate), and first steps that are slower than the others."""
GIB, PROMPT = 2**30, "a red chair"
PICTURE_SIDE = 512

ONE_EACH = [f"{name}.switch.criterion=late" for name in ("nerf", "neus")]
"""No stage hands over before its steps are done."""
GEOMETRY = ("nerf", "neus", "dmtet")
SMALL = [
    "threads=1",
    "reference.size=64",
    "reference.n_candidates=2",
    "reference.sampling_steps=4",
    *(f"{name}.grid={{n_levels: 4, log2_table_size: 10, hidden_size: 16}}" for name in GEOMETRY),
    *(f"{name}.{part}=32" for name in GEOMETRY for part in ("reference_size", "guidance_size")),
    *(f"{name}.guidance_views=2" for name in GEOMETRY),
    *(f"{name}.{part}=16" for name in ("nerf", "neus") for part in ("occupancy_resolution", "samples_per_ray")),
    "nerf.finer={begin: 0.5, size: 48, views: 1}",
    "nerf.jittered_points=64",
    "neus.conversion_resolution=24",
    "neus.conversion_steps=20",
    "dmtet.tet_resolution=14",
    "dmtet.color_fit_steps=2",
    "polish.size=32",
    "polish.views=1",
    "polish.color_fit_steps=2",
    "texture.size=32",
    "texture.views=2",
    "texture.lora_rank=2",
    "export.triangle_budget=200",
    "export.texture_size=128",
    "export.turntable_views=2",
    "export.turntable_size=16",
    *(f"{name}.preview.size=16" for name in (*STEPPED, "export")),
    *(f"{name}.preview.n_views=2" for name in (*STEPPED, "export")),
]
"""Of a rehearsal in tiny widths."""


@dataclass(frozen=True)
class Rehearsed:
    """One stage. seconds: of the rehearsal. step_seconds: of a step, once warm; shares: of all in score networks and in autoencoders.
    peak_gib: of CUDA, 0 on a CPU. planned_gib: None without a plan. projected_seconds: of the preset's own number of steps."""

    name: StageName
    seconds: float
    steps: int
    step_seconds: float
    network_share: float
    autoencoder_share: float
    peak_gib: float
    planned_gib: float | None
    projected_seconds: float


def rehearse(
    preset: str, overrides: Sequence[str], width: Width, family: Family, steps: int, vram: float | None
) -> list[Rehearsed]:
    """Rehearse a preset in a temporary folder. family: the text prior's. steps: of each stage, even. Raises ConfigError and StageError."""
    if steps < 2 * PERIOD or steps % PERIOD:
        raise ConfigError(f"--steps {steps} must be even and at least {2 * PERIOD}: reference and guidance alternate")
    with TemporaryDirectory(prefix="dreampolish-rehearsal-") as name:
        folder = Path(name)
        say(f"writing networks of {width} width with random numbers for weights")
        sources = write_models(folder, width, family, "random")
        small = SMALL if width == "tiny" else []
        whole = load_config(preset, CONFIGS, [*small, *sources, *overrides])
        few = load_config(preset, CONFIGS, [*small, *sources, *overrides, *ONE_EACH, *_few_steps(whole, steps)])
        check_priors(few)
        record = RunRecord(run=new_id(), prompt=PROMPT, config=few, created=now())
        record = with_plan(record, vram, is_new=True)
        say_plan(record.plan)
        picture = keep_image(folder / "store", _picture(folder / "picture.png"), few.reference, matted=False)
        return _stages(record.model_copy(update={"image": picture}), folder / "store", whole)


def write_models(folder: Path, width: Width, family: Family, content: Content) -> list[str]:
    """Text, view and normal priors of real architectures in a folder; the settings that name them."""
    sizes = {("full", True): FULL, ("full", False): FULL_XL, ("tiny", True): TINY, ("tiny", False): TINY_XL}[
        width, family == "sd"
    ]
    write_text(folder / "text", sizes, family, content)
    write_view(folder / "view", sizes, content)
    write_normals(folder / "normals", sizes, content)
    return [f"priors.{role}.source={folder / role}" for role in ("text", "view", "normals")]


def _few_steps(whole: Config, steps: int) -> list[str]:
    return [f"{name}.steps={min(steps, getattr(whole, name).steps)}" for name in STEPPED]


def _picture(path: Path) -> Path:
    """A disc on a transparent ground: pictures that random networks draw show no object."""
    picture = Image.new("RGBA", (PICTURE_SIDE, PICTURE_SIDE), (0, 0, 0, 0))
    margin = PICTURE_SIDE // 6
    ImageDraw.Draw(picture).ellipse((margin, margin, PICTURE_SIDE - margin, PICTURE_SIDE - margin), fill=(200, 40, 30, 255))
    picture.save(path)
    return path


def _stages(record: RunRecord, store: Path, whole: Config) -> list[Rehearsed]:
    from flows.runs.chain import CHAIN  # the stages take seconds to import

    store.mkdir(parents=True, exist_ok=True)
    run = context_of(record, store, None, show_progress=False).model_copy(update={"log_steps": False})
    clock, done, found = NetworkClock(run.torch_device), dict[StageName, Artifact](), list[Rehearsed]()
    times: dict[StageName, list[float]] = {}
    run.listen_to_steps(lambda stage, step: times.setdefault(stage, []).append(_moment(run)))
    with clock.running():
        for name in STAGES:
            clock.reset()
            begin = _moment(run)
            done[name] = CHAIN[name].compute(run, **arguments_from_record(CHAIN[name], record, store, done))
            seconds = _moment(run) - begin
            moments = times.get(name, []) if name in STEPPED else []
            each = _rehearsed(
                run=run, name=name, seconds=seconds, moments=moments, clock=clock, artifact=done[name], whole=whole
            )
            if name == "reference":
                each = _with_drawing(each, run, whole)
            found.append(each)
            say(_line(each))
    return found


def _moment(run: RunContext) -> float:
    """Now, when a GPU has done what it was given."""
    if run.torch_device.type == "cuda":
        torch.cuda.synchronize(run.torch_device)
    return time.perf_counter()


def _rehearsed(
    run: RunContext,
    name: StageName,
    seconds: float,
    moments: Sequence[float],
    clock: NetworkClock,
    artifact: Artifact,
    whole: Config,
) -> Rehearsed:
    lasted = [after - before for before, after in itertools.pairwise(moments)]
    # Of the first steps, which are slower, later ones of the same kinds take the place.
    warm = [*lasted[WARM_UP - 1 : WARM_UP - 1 + PERIOD], *lasted[WARM_UP - 1 :]]
    step = sum(warm) / len(warm) if warm else 0.0
    steps = len(moments)
    total = getattr(getattr(whole, name), "steps", 0) if steps else 0
    rest = max(seconds - step * steps, 0.0)
    planned = None if run.plan is None or name not in run.plan.stages else run.plan.stages[name].total_gib
    return Rehearsed(
        name=name,
        seconds=seconds,
        steps=steps,
        step_seconds=step,
        network_share=min(clock.seconds("networks") / seconds, 1.0),
        autoencoder_share=min(clock.seconds("autoencoders") / seconds, 1.0),
        peak_gib=artifact.cuda_peak_memory / GIB,
        planned_gib=planned,
        projected_seconds=rest + step * total,
    )


def _with_drawing(each: Rehearsed, run: RunContext, whole: Config) -> Rehearsed:
    """The reference stage with what it would take to draw the candidates, measured on a few sampling steps."""
    config = whole.reference
    stage = Stage(name="reference", run=run, config=config, key="0" * 64, parents=[])
    prior = open_text_prior(stage)
    texts = prior.embed([PROMPT] * config.n_candidates + [config.negative_prompt])
    text, negative = texts.rows(slice(0, config.n_candidates)), texts.rows(slice(config.n_candidates, None))
    lasted = []
    for steps in (1, 1, 3):
        begin = _moment(run)
        prior.sample(
            text=text,
            negative=negative,
            guidance_scale=config.guidance_scale,
            steps=steps,
            renewed=config.renewed,
            generator=stage.generator,
        )
        lasted.append(_moment(run) - begin)
    step = max(lasted[2] - lasted[1], 0.0) / 2
    drawing = lasted[1] + step * (config.sampling_steps - 1)
    return Rehearsed(**{**asdict(each), "projected_seconds": each.projected_seconds + drawing})


def _line(each: Rehearsed) -> str:
    step = f"{each.step_seconds * 1000:,.0f} ms a step" if each.steps else "no steps"
    memory = (
        ""
        if not each.peak_gib
        else f", {each.peak_gib:.1f} GiB" + ("" if each.planned_gib is None else f" of {each.planned_gib:.1f} planned")
    )
    return f"{each.name:<10} {each.seconds:6.1f} s, {step}{memory}; projected {each.projected_seconds / 60:.1f} min"


def table(found: Sequence[Rehearsed]) -> list[str]:
    """A Markdown table, with the whole run in its last row."""
    lines = [
        "| stage | a step, ms | in score networks | in autoencoders | CUDA peak, GiB | planned, GiB | projected, min |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in found:
        step = f"{each.step_seconds * 1000:,.0f}" if each.steps else "-"
        peak = f"{each.peak_gib:.1f}" if each.peak_gib else "-"
        planned = "-" if each.planned_gib is None else f"{each.planned_gib:.1f}"
        shares = f"{each.network_share:.0%} | {each.autoencoder_share:.0%}"
        lines.append(f"| {each.name} | {step} | {shares} | {peak} | {planned} | {each.projected_seconds / 60:.1f} |")
    whole = sum(each.projected_seconds for each in found) / 60
    largest = max(each.peak_gib for each in found)
    return [*lines, f"| whole run | - | - | - | {f'{largest:.1f}' if largest else '-'} | - | {whole:.1f} |"]


def device_words(name: str) -> str:
    """What the rehearsal ran on."""
    return torch.cuda.get_device_name() if name == "cuda" else "CPU, where no figure says anything of a GPU"


def figures(found: Sequence[Rehearsed]) -> dict[str, Any]:
    """For `--json`."""
    return {"stages": [asdict(each) for each in found], "projected_seconds": sum(each.projected_seconds for each in found)}
