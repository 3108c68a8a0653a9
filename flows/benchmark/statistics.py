"""What a benchmark measured, and what that says: means over objects and paired changes from stage to stage."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import stdev

from flows.benchmark.assets import AssetResult
from flows.benchmark.stages import Row


@dataclass(frozen=True)
class Figure:
    """One measured number. better: +1 when more is better, -1 when less is, 0 for what is told and not judged. cost: of the
    computing, not of the result; stages are not compared by it."""

    key: str
    label: str
    digits: int
    scale: float
    better: int
    cost: bool = False


FIGURES = (
    Figure("psnr", "PSNR, dB", 2, 1, 1),
    Figure("psnr_solid", "PSNR as a surface, dB", 2, 1, 1),
    Figure("ssim", "SSIM", 3, 1, 1),
    Figure("mask_iou", "mask IoU", 3, 1, 1),
    Figure("chamfer", "Chamfer, 1/1000", 1, 1000, -1),
    Figure("f_score", "F-score", 3, 1, 1),
    Figure("roughness_deg", "roughness, deg", 1, 1, 0),
    Figure("normal_angle_deg", "normals, deg", 1, 1, -1),
    Figure("reference_psnr", "front PSNR, dB", 2, 1, 1),
    Figure("reference_ssim", "front SSIM", 3, 1, 1),
    Figure("alignment", "alignment", 3, 1, 1),
    Figure("seconds", "seconds", 0, 1, 0, cost=True),
    Figure("peak_memory_gib", "peak GiB", 2, 1, 0, cost=True),
)


@dataclass(frozen=True)
class ObjectResult:
    """One object's figures by stage, and without texture, unscaled; a figure that has no value (no common mask) is left out."""

    name: str
    prompt: str
    run: str
    stages: dict[Row, dict[str, float]]


@dataclass(frozen=True)
class PromptResult:
    """One prompt's final renders: how many of its views the judge took for it, and what it took most views for."""

    prompt: str
    run: str
    hits: int
    views: int
    nearest: str
    alignment: float


@dataclass(frozen=True)
class Failure:
    """What could not be measured, and why, in one line."""

    name: str
    message: str


@dataclass(frozen=True)
class Results:
    """All of one benchmark."""

    objects: list[ObjectResult] = field(default_factory=list)
    prompts: list[PromptResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    assets: list[AssetResult] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """Paired difference of a figure between two stages. mean: after minus before, unscaled; error: its standard error over the
    objects, None of a single one. improved, worsened, objects: counts."""

    mean: float
    error: float | None
    improved: int
    worsened: int
    objects: int

    def direction(self, figure: Figure) -> int:
        """+1 where the average got better, -1 where worse, 0 where it is the same to the digits that are shown."""
        shown = round(self.mean * figure.scale, figure.digits) * figure.better
        return (shown > 0) - (shown < 0)

    @property
    def beyond_chance(self) -> bool:
        """Whether the mean is more than two standard errors away from 0."""
        return self.error is not None and abs(self.mean) > 2 * self.error


def mean_of(objects: Sequence[ObjectResult], stage: Row, key: str) -> float | None:
    """The mean over the objects that have the figure; None if none has."""
    values = [result.stages[stage][key] for result in objects if key in result.stages.get(stage, {})]
    return sum(values) / len(values) if values else None


def change_of(objects: Sequence[ObjectResult], before: Row, after: Row, figure: Figure) -> Change | None:
    """The paired change over the objects that have the figure in both stages; None if none has."""
    both = [result.stages for result in objects if all(figure.key in result.stages.get(s, {}) for s in (before, after))]
    differences = [stages[after][figure.key] - stages[before][figure.key] for stages in both]
    if not differences:
        return None
    signs = [difference * figure.better for difference in differences]
    return Change(
        mean=sum(differences) / len(differences),
        error=stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None,
        improved=sum(sign > 0 for sign in signs),
        worsened=sum(sign < 0 for sign in signs),
        objects=len(differences),
    )


def r_precision(prompts: Sequence[PromptResult]) -> float | None:
    """The share of all prompts' views that the judge took for their prompt; None without prompts."""
    views = sum(result.views for result in prompts)
    return sum(result.hits for result in prompts) / views if views else None
