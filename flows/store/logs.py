"""Logs of services that run for weeks stay small: a large one is copied aside and emptied, the oldest copy goes.

The services hold their logs open, so they cannot be renamed away. They only ever append, so that what they write next stands at the new
beginning. A line written between the copy and the cut is lost.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from stages.runtime.files import take_lock

LOG_BYTES = 8 * 2**20
KEPT = 3
"""Copies of a log, `<name>.log.1` the newest."""


def rotate_logs(store: Path) -> None:
    """Rotate the services' logs that have grown large. What the disk refuses, or another process is doing, is left for the next time."""
    for log in sorted((store / "services").glob("*.log")):
        with suppress(OSError):
            if log.stat().st_size > LOG_BYTES:
                with take_lock(log.with_name("rotating"), wait_s=0):
                    _rotate(log)


def _rotate(log: Path) -> None:
    if log.stat().st_size <= LOG_BYTES:
        return  # another process was faster
    for number in range(KEPT, 1, -1):
        with suppress(FileNotFoundError):
            copy_path(log, number - 1).replace(copy_path(log, number))
    partial = log.with_name(f".{log.name}.partial")
    shutil.copyfile(log, partial)
    partial.replace(copy_path(log, 1))
    os.truncate(log, 0)


def copy_path(log: Path, number: int) -> Path:
    """Where a log's older lines lie."""
    return log.with_name(f"{log.name}.{number}")
