"""A number that may change over a stage: the only form a weight, a scale or a timestep bound takes in the settings."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.base import Frozen


class Ramp(Frozen):
    """Linear from `start` to `end` while the stage's progress (step / steps) goes from `begin` to `until`; constant outside.

    In YAML and `--set`, a plain number means start = end. Source of the form: threestudio's [start_step, start, end, end_step],
    with fractions in place of steps, so that a preset with another budget keeps the shape.
    """

    start: float
    """Value up to `begin`."""
    end: float
    """Value from `until` on."""
    begin: float = Field(default=0.0, ge=0.0, le=1.0)
    """Progress (0..1) at which the value begins to change."""
    until: float = Field(default=1.0, ge=0.0, le=1.0)
    """Progress (0..1) at which the value has reached its end."""

    @model_validator(mode="after")
    def _begins_first(self) -> Self:
        if self.begin > self.until:
            raise ValueError(f"begin {self.begin:g} lies after until {self.until:g}; a ramp goes forward")
        return self

    def at(self, step: int, steps: int) -> float:
        """The value at a step of a stage of `steps` steps (0 <= step < steps)."""
        return self.at_progress(step / max(steps - 1, 1))

    def at_progress(self, progress: float) -> float:
        """The value at a progress in [0, 1]."""
        if progress >= self.until:
            return self.end
        if progress <= self.begin:
            return self.start
        return self.start + (self.end - self.start) * (progress - self.begin) / (self.until - self.begin)

    @property
    def largest(self) -> float:
        """The largest value it takes."""
        return max(self.start, self.end)


def constant(value: float) -> Ramp:
    """A ramp that stays at one value."""
    return Ramp(start=value, end=value)


def _ramp_from_number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return constant(float(value))
    if isinstance(value, dict | Ramp):
        return value
    raise ValueError("must be a number, or {start, end, begin, until}")


def _not_negative(ramp: Ramp) -> Ramp:
    if min(ramp.start, ramp.end) < 0:
        raise ValueError(f"must not fall below 0, but reaches {min(ramp.start, ramp.end):g}")
    return ramp


def _a_fraction(ramp: Ramp) -> Ramp:
    if min(ramp.start, ramp.end) < 0 or max(ramp.start, ramp.end) > 1:
        raise ValueError(f"must stay between 0 and 1, but goes from {ramp.start:g} to {ramp.end:g}")
    return ramp


Schedule = Annotated[Ramp, BeforeValidator(_ramp_from_number, json_schema_input_type=float | Ramp)]
"""A field's type: accepts a number or a ramp, always holds a ramp."""

Weight = Annotated[Schedule, AfterValidator(_not_negative)]
"""A schedule that is nowhere negative."""

Fraction = Annotated[Schedule, AfterValidator(_a_fraction)]
"""A schedule within [0, 1]."""
