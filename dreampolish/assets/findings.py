"""What a check says of one file."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FileFindings:
    """Errors and warnings, one sentence each. checker: which validator spoke. figures: what the file holds."""

    checker: str
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
