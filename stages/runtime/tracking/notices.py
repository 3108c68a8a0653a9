"""Notices of a store's services, on disk: what the automations say, for the page of runs and whoever reads the file."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from stages.runtime.tracking.messages import printable

MOST_SHOWN = 50
"""Lines of the notices that are read back."""


def notices_path(store: Path) -> Path:
    """Where the notices lie: a JSON object a line; its owner's alone."""
    return store / "services" / "notices.log"


def write_notice(store: Path, subject: str, body: str) -> None:
    """Append a notice. Raises OSError."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "subject": printable(subject), "body": body}
    with open(notices_path(store), "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(json.dumps(line) + "\n")


def read_notices(store: Path) -> list[dict[str, str]]:
    """The latest notices, newest first; none where there are none, or they cannot be read."""
    try:
        lines = notices_path(store).read_text(errors="replace").splitlines()[-MOST_SHOWN:]
    except OSError:
        return []
    found = []
    for line in reversed(lines):
        try:
            found.append({str(key): str(value) for key, value in json.loads(line).items()})
        except (ValueError, AttributeError):
            continue
    return found
