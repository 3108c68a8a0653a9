"""Results of a benchmark, means over objects and paired changes from stage to stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from flows.benchmark.assets.checks import AssetResult
from flows.benchmark.stages import ROWS, Row


@dataclass(frozen=True)
class Figure:
    """One measured number. better: +1 when more is better, -1 when less is, 0 when neither is. cost: of the computing, not of the
    result; stages are not compared by it."""

    key: str
    label: str
    digits: int
    better: int
    scale: float = 1
    cost: bool = False

    def text(self, value: float | None) -> str:
        """A value in the figure's unit and digits; a dash where there is none."""
        return "-" if value is None or math.isnan(value) else f"{value * self.scale:.{self.digits}f}"

    def change_text(self, mean: float, error: float) -> str:
        """A difference with its sign and ± its standard error, which is left out where it is NaN."""
        change = f"{mean * self.scale:+.{self.digits}f}"
        return change if math.isnan(error) else f"{change} ± {self.text(error)}"


FIGURES = (
    Figure("psnr", "PSNR, dB", digits=2, better=1),
    Figure("psnr_solid", "PSNR as a surface, dB", digits=2, better=1),
    Figure("ssim", "SSIM", digits=3, better=1),
    Figure("mask_iou", "mask IoU", digits=3, better=1),
    Figure("chamfer", "Chamfer, 1/1000", digits=1, scale=1000, better=-1),
    Figure("f_score", "F-score", digits=3, better=1),
    Figure("roughness_deg", "roughness, deg", digits=1, better=0),
    Figure("normal_angle_deg", "normals, deg", digits=1, better=-1),
    Figure("reference_psnr", "front PSNR, dB", digits=2, better=1),
    Figure("reference_ssim", "front SSIM", digits=3, better=1),
    Figure("alignment", "alignment", digits=3, better=1),
    Figure("seconds", "seconds", digits=0, better=0, cost=True),
    Figure("peak_memory_gib", "peak GiB", digits=2, better=0, cost=True),
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


def one_line(error: Exception) -> str:
    """An error's message without line breaks; its kind where it has none."""
    return " ".join((str(error) or type(error).__name__).split())


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
    objects, NaN for a single one. improved, worsened, objects: counts."""

    mean: float
    error: float
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
        return abs(self.mean) > 2 * self.error


def figure_table(objects: Sequence[ObjectResult]) -> pd.DataFrame:
    """One row an object and stage, one column a figure; NaN where there is no value."""
    index, keys = ["object", "stage"], [figure.key for figure in FIGURES]
    rows = [{"object": result.name, "stage": stage, **own} for result in objects for stage, own in result.stages.items()]
    return pd.DataFrame(rows, columns=[*index, *keys]).set_index(index).astype(float)


def stage_means(objects: Sequence[ObjectResult]) -> pd.DataFrame:
    """Mean of every figure (columns) over the objects that have it, for every stage (rows); NaN if none has."""
    return figure_table(objects).groupby("stage").mean().reindex(ROWS)


def change_of(table: pd.DataFrame, before: Row, after: Row, figure: Figure) -> Change | None:
    """The paired change over the objects of a `figure_table` that have the figure in both stages; None if none has."""
    stages = table[figure.key].unstack("stage").reindex(columns=ROWS)
    differences = (stages[after] - stages[before]).dropna()
    if differences.empty:
        return None
    signs = differences * figure.better
    return Change(
        mean=float(differences.mean()),
        error=float(differences.sem()),
        improved=int((signs > 0).sum()),
        worsened=int((signs < 0).sum()),
        objects=len(differences),
    )


def r_precision(prompts: Sequence[PromptResult]) -> float:
    """The share of all prompts' views that the judge took for their prompt; NaN without prompts."""
    views = sum(result.views for result in prompts)
    return sum(result.hits for result in prompts) / views if views else math.nan
