"""What a finding is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. line: what, and the command that mends it; mend: does so where that is safe, else None."""

    line: str
    mend: Callable[[], None] | None = None
