"""A number that may change over a stage: the only form a weight, a scale or a timestep bound takes in the settings."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from schemas.frozen import Frozen


class Ramp(Frozen):
    """Linear from `start` to `end` while the stage's progress (step / steps) goes from `begin` to `until`; constant outside.

    In YAML and `--set`, a plain number means start = end. Source of the form: threestudio's [start_step, start, end, end_step],
    with fractions in place of steps, so that a preset with another budget keeps the shape.
    """

    start: float
    end: float
    begin: float = Field(default=0.0, ge=0.0, le=1.0)
    until: float = Field(default=1.0, ge=0.0, le=1.0)

    def at(self, step: int, steps: int) -> float:
        """The value at a step of a stage of `steps` steps (0 <= step < steps)."""
        progress = step / max(steps - 1, 1)
        if progress >= self.until:
            return self.end
        if progress <= self.begin:
            return self.start
        return self.start + (self.end - self.start) * (progress - self.begin) / (self.until - self.begin)


def constant(value: float) -> Ramp:
    """A ramp that stays at one value."""
    return Ramp(start=value, end=value)


def _ramp_from_number(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return constant(float(value))
    return value


Schedule = Annotated[Ramp, BeforeValidator(_ramp_from_number)]
"""A field's type: accepts a number or a ramp, always holds a ramp."""
