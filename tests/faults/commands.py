"""The command that users type, with Prefect in it, cut off in every stage by every signal, then one `dreampolish resume`.

    python tests/faults/commands.py [--only reference-early-SIGKILL ...] [--jobs N] [--json FILE]

The kill matrix calls stages without Prefect, which starts a server, wraps every stage and takes SIGTERM for each of its flows. Here a
cell is a process of its own; the moments take turns, so that each meets every signal.
"""

import os
import subprocess
import sys
from pathlib import Path

from cells import MOMENTS, SIGNALS, Cell, lay_hook
from kill_matrix import Matrix, main

from schemas.runs import STAGES
from stages.fingerprint import PROJECT

LIMIT_S = 600.0


def command_cells() -> list[Cell]:
    """One moment for every stage and signal."""
    return [
        Cell(stage, MOMENTS[(number + 2 * turn) % len(MOMENTS)], signal)
        for turn, signal in enumerate(SIGNALS)
        for number, stage in enumerate(STAGES)
    ]


class Commands(Matrix):
    """The kill matrix with whole commands in place of forks; the undisturbed run is the matrix's own."""

    def resumed(self, folder: Path, cell: Cell | None, log: Path) -> int:
        """`dreampolish resume RUN` in a process of its own, with a store, Prefect and MLflow of its own."""
        ours = {
            "DREAMPOLISH_STORE": str(folder / "store"),
            "PREFECT_HOME": str(self.root / "prefect"),
            "PYTHONPATH": str(PROJECT),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))} | ours
        command = [sys.executable, __file__, "cut", cell.name if cell else "nowhere", "resume", self.run]
        with log.open("w") as said:
            ended = subprocess.run(
                command, cwd=folder, env=environment, stdout=said, stderr=said, timeout=LIMIT_S, check=False
            )  # fmt: skip
        return ended.returncode

    def untold(self, cell: Cell, folder: Path) -> list[str]:
        """Nothing: the tracker is there, and journals go once it has them."""
        return []


def cut() -> None:
    """`python commands.py cut CELL ARGUMENT...`: the command with these arguments, cut off as the cell says."""
    from flows.cli import main as command

    _, _, name, *arguments = sys.argv
    if name != "nowhere":
        lay_hook(Cell(*name.split("-")))  # type: ignore[arg-type]
    sys.argv = ["dreampolish", *arguments]
    command()


if __name__ == "__main__":
    if sys.argv[1:2] == ["cut"]:
        cut()
    else:
        main(Commands, command_cells())
