"""What a study measured and what that says: means, spread over seeds, and paired differences to the base variant."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import TypeAdapter, ValidationError
from scipy.stats import t as student

from dreampolish.optim.atomic_files import write_atomically
from flows.benchmark.statistics import FIGURES, Figure
from schemas.config.presets import ConfigError
from schemas.studies import Study

STUDY_FIGURES = (
    *(figure for figure in FIGURES if figure.key not in ("seconds", "peak_memory_gib")),
    Figure("judged_right", "judged right", digits=2, better=1),
    Figure("normal_agreement", "normal agreement", digits=3, better=1),
    Figure("colour_drift", "colour drift", digits=3, better=-1),
    Figure("saturation", "saturation", digits=3, better=0),
    Figure("grain", "grain, 1/1000", digits=1, scale=1000, better=0),
    Figure("steps", "steps", digits=0, better=0),
    Figure("seconds", "seconds", digits=0, better=0),
)
BY_KEY: Mapping[str, Figure] = {figure.key: figure for figure in STUDY_FIGURES}
CONFIDENCE = 0.95


@dataclass(frozen=True)
class StageResult:
    """How a stage of a cell went. seconds: of the computation, whoever made it."""

    state: str
    seconds: float
    fingerprint: str


@dataclass(frozen=True)
class CellResult:
    """One cell. error: why it has no figures, in one line."""

    variant: str
    subject: str
    prompt: str
    group: str
    seed: int
    run: str
    until: str
    figures: dict[str, float] = field(default_factory=dict)
    stages: dict[str, StageResult] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)
    """What differs from the base variant, as `key=value`."""
    error: str | None = None


@dataclass(frozen=True)
class Paired:
    """Difference of a variant to the base over the same subjects and seeds: mean, its standard error, the 95 % interval of Student's t.

    error, low and high are NaN for a single pair.
    """

    mean: float
    error: float
    low: float
    high: float
    pairs: int

    def verdict(self, figure: Figure) -> int:
        """+1 where the interval says better, -1 worse, 0 where it holds 0 or there is none."""
        return figure.better * ((self.low > 0) - (self.high < 0))


@dataclass(frozen=True)
class Unpaired:
    """Two groups' means over subjects (each the mean of its cells). error: Welch's, of the difference; NaN where a group has one."""

    first: float
    second: float
    error: float
    counts: tuple[int, int]

    @property
    def difference(self) -> float:
        """second - first."""
        return self.second - self.first


def figure_table(cells: Sequence[CellResult]) -> pd.DataFrame:
    """One row a cell, one column a figure; NaN where a cell has none."""
    index = ["variant", "group", "subject", "seed"]
    rows = [{**{name: getattr(cell, name) for name in index}, **cell.figures} for cell in cells]
    return pd.DataFrame(rows, columns=[*index, *BY_KEY]).set_index(index).astype(float)


def seed_spreads(table: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation over seeds of one subject, pooled over the subjects that have at least two; NaN if none has."""
    subjects = table.groupby(["variant", "subject"])
    freedom = (subjects.count() - 1).clip(lower=0)
    squares = (subjects.var() * freedom).groupby("variant").sum()
    return (squares / freedom.groupby("variant").sum().where(lambda total: total > 0)) ** 0.5


def paired(table: pd.DataFrame, variant: str, base: str, key: str) -> Paired | None:
    """The variant's difference to the base over subject x seed; None without a common pair."""
    differences = (table[key].xs(variant, level="variant") - table[key].xs(base, level="variant")).dropna()
    if differences.empty:
        return None
    mean, error, pairs = float(differences.mean()), float(differences.sem()), len(differences)
    half = error * float(student.ppf((1 + CONFIDENCE) / 2, pairs - 1))
    return Paired(mean, error, low=mean - half, high=mean + half, pairs=pairs)


def between_groups(table: pd.DataFrame, variant: str, key: str, first: str, second: str) -> Unpaired | None:
    """A figure of two groups of subjects under one variant; None where a group has none."""
    subjects = table[key].xs(variant, level="variant").groupby(["group", "subject"]).mean()
    groups = subjects.groupby("group").agg(["mean", "sem", "count"]).reindex([first, second])
    if groups["mean"].isna().any():
        return None
    (one, other), (many, more) = groups["mean"], groups["count"]
    return Unpaired(first=float(one), second=float(other), error=math.hypot(*groups["sem"]), counts=(int(many), int(more)))


@dataclass(frozen=True)
class StudyResult:
    """study.json: all of one study. study: the file's content as it was checked. overrides: given beside it."""

    study: dict[str, Any]
    id: str
    date: str
    machine: str
    versions: str
    overrides: list[str]
    cells: list[CellResult]
    notes: list[str] = field(default_factory=list)
    """What a reader has to know beside the numbers, one sentence each."""
    schema_version: Literal[1] = 1

    @property
    def spec(self) -> Study:
        """The study itself."""
        return Study.model_validate(self.study)

    @property
    def variants(self) -> list[str]:
        """Names, in the study's order."""
        return list(self.spec.all_variants())

    @property
    def others(self) -> list[str]:
        """The variants that are compared with the base."""
        return [name for name in self.variants if name != self.spec.base_name]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The cells' figures, as `figure_table` lays them out."""
        return figure_table(self.cells)

    @property
    def means(self) -> pd.DataFrame:
        """Mean of every figure (columns) over the cells of every variant (rows)."""
        return self.table.groupby("variant").mean().reindex(self.variants)

    @property
    def figures(self) -> list[Figure]:
        """The figures that any cell has, in the order of tables; steps and seconds last."""
        return [figure for figure in STUDY_FIGURES if self.table[figure.key].notna().any()]

    @property
    def headline(self) -> list[Figure]:
        """The figures that the plot shows: those wanted, as far as they are there, else the first six that are better or worse."""
        chosen = [BY_KEY[key] for key in self.spec.figures if BY_KEY.get(key) in self.figures]
        return chosen or [figure for figure in self.figures if figure.better][:6]


def write_result(path: Path, result: StudyResult) -> None:
    """As JSON."""
    write_atomically(path, json.dumps(asdict(result), indent=1).encode())


def read_result(folder: Path) -> StudyResult:
    """The study.json of a study's output folder. Raises ConfigError, in one line, where none can be read."""
    path = folder / "study.json"
    try:
        return TypeAdapter(StudyResult).validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; `dreampolish ablate` writes it") from None
    except ValidationError as error:
        raise ConfigError(f"{path} is no study's result: {error.errors()[0]['msg']}") from None
