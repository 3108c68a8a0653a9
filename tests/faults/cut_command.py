"""`dreampolish ARGUMENT...`, cut off as a cell says: `python cut_command.py CELL|nowhere ARGUMENT...`. What commands.py starts."""

import os
import sys
from pathlib import Path

from flows.service.environment import quiet_environment

if __name__ == "__main__":
    # Before Prefect is imported, as the command does.
    quiet_environment(Path(os.environ["DREAMPOLISH_STORE"]))
    from cells import Cell, lay_hook

    from flows.cli import main

    _, cell, *arguments = sys.argv
    if cell != "nowhere":
        lay_hook(Cell(*cell.split("-")))  # type: ignore[arg-type]
    sys.argv = ["dreampolish", *arguments]
    main()
