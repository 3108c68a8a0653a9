"""What a study measured and what that says: means, spread over seeds, and paired differences to the base variant."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from scipy.stats import t as student

from dreampolish.optim.atomic_files import write_atomically
from flows.benchmark.statistics import FIGURES, Figure
from schemas.config.presets import ConfigError
from schemas.studies import Study

STUDY_FIGURES = (
    *(figure for figure in FIGURES if figure.key not in ("seconds", "peak_memory_gib")),
    Figure("judged_right", "judged right", 2, 1, 1),
    Figure("normal_agreement", "normal agreement", 3, 1, 1),
    Figure("colour_drift", "colour drift", 3, 1, -1),
    Figure("saturation", "saturation", 3, 1, 0),
    Figure("grain", "grain, 1/1000", 1, 1000, 0),
    Figure("steps", "steps", 0, 1, 0),
    Figure("seconds", "seconds", 0, 1, 0),
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

    error and interval are None for a single pair.
    """

    mean: float
    error: float | None
    low: float | None
    high: float | None
    pairs: int

    def verdict(self, figure: Figure) -> int:
        """+1 where the interval says better, -1 worse, 0 where it holds 0 or there is none."""
        if self.low is None or self.high is None or (self.low <= 0 <= self.high):
            return 0
        return figure.better if self.mean > 0 else -figure.better


def done(cells: Iterable[CellResult], variant: str | None, key: str) -> list[CellResult]:
    """The cells of a variant (None: of all) that have a figure."""
    return [cell for cell in cells if key in cell.figures and variant in (None, cell.variant)]


def mean_of(cells: Sequence[CellResult], variant: str, key: str) -> float | None:
    """Mean over all cells of a variant; None if none has the figure."""
    values = [cell.figures[key] for cell in done(cells, variant, key)]
    return mean(values) if values else None


def seed_spread(cells: Sequence[CellResult], variant: str, key: str) -> float | None:
    """Standard deviation over seeds of one subject, pooled over the subjects that have at least two; None if none has."""
    found = sorted(done(cells, variant, key), key=lambda cell: cell.subject)
    groups = [[cell.figures[key] for cell in group] for _, group in groupby(found, key=lambda cell: cell.subject)]
    parts = [(stdev(values) ** 2 * (len(values) - 1), len(values) - 1) for values in groups if len(values) > 1]
    return math.sqrt(sum(part for part, _ in parts) / sum(freedom for _, freedom in parts)) if parts else None


def paired(cells: Sequence[CellResult], variant: str, base: str, key: str) -> Paired | None:
    """The variant's difference to the base over subject x seed; None without a common pair."""
    before = {(cell.subject, cell.seed): cell.figures[key] for cell in done(cells, base, key)}
    after = {(cell.subject, cell.seed): cell.figures[key] for cell in done(cells, variant, key)}
    return _interval([after[pair] - before[pair] for pair in sorted(before.keys() & after.keys())])


def _interval(differences: Sequence[float]) -> Paired | None:
    if not differences:
        return None
    middle, pairs = mean(differences), len(differences)
    if pairs < 2:
        return Paired(middle, None, None, None, pairs)
    error = stdev(differences) / math.sqrt(pairs)
    half = error * float(student.ppf((1 + CONFIDENCE) / 2, pairs - 1))
    return Paired(middle, error, middle - half, middle + half, pairs)


@dataclass(frozen=True)
class Unpaired:
    """Difference of two groups' means over subjects (each the mean of its cells), with Welch's standard error."""

    first: float
    second: float
    error: float | None
    counts: tuple[int, int]

    @property
    def difference(self) -> float:
        """second - first."""
        return self.second - self.first


def between_groups(cells: Sequence[CellResult], variant: str, key: str, first: str, second: str) -> Unpaired | None:
    """A figure of two groups of subjects under one variant; None where a group has none."""
    found = done(cells, variant, key)
    means = [_subject_means([cell for cell in found if cell.group == group], key) for group in (first, second)]
    if not all(means):
        return None
    error = None
    if min(len(values) for values in means) > 1:
        error = math.sqrt(sum(stdev(values) ** 2 / len(values) for values in means))
    return Unpaired(mean(means[0]), mean(means[1]), error, (len(means[0]), len(means[1])))


def _subject_means(cells: Sequence[CellResult], key: str) -> list[float]:
    ordered = sorted(cells, key=lambda cell: cell.subject)
    return [mean(cell.figures[key] for cell in group) for _, group in groupby(ordered, key=lambda cell: cell.subject)]


def present_figures(cells: Sequence[CellResult]) -> list[Figure]:
    """The figures that any cell has, in the order of tables; steps and seconds last."""
    return [figure for figure in STUDY_FIGURES if done(cells, None, figure.key)]


def headline(cells: Sequence[CellResult], wanted: Sequence[str]) -> list[Figure]:
    """The figures that the plot shows: those wanted, as far as they are there, else the first six that are better or worse."""
    present = present_figures(cells)
    chosen = [figure for key in wanted for figure in present if figure.key == key]
    return chosen or [figure for figure in present if figure.better][:6]


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
