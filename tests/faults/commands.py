"""The command that users type, with Prefect in it, cut off in every stage by every signal, then one `dreampolish resume`.

    python tests/faults/commands.py [--only reference-early-SIGKILL ...] [--jobs N] [--json FILE]

The kill matrix calls stages without Prefect, which starts a server, wraps every stage and takes SIGTERM for each of its flows. Here a
cell is a process of its own; the moments take turns, so that each signal meets most of them.
"""

import os
import subprocess
import sys
from pathlib import Path

from cells import MOMENTS, SIGNALS, Cell, has
from kill_matrix import Forks, main

from schemas.runs import STAGES
from stages.runtime.files import PROJECT

LIMIT_S = 600.0
TURN = 13
"""From one signal's moment to the next one's; it divides by no number of moments."""
NO_WAY_ON = 999
"""In place of 130, where the last line does not say how to go on."""


def command_cells() -> list[Cell]:
    """One moment for every stage and signal, for each signal another one."""
    moments = {stage: [moment for moment in MOMENTS if has(stage, moment)] for stage in STAGES}
    return [
        Cell(stage, moments[stage][(number + TURN * turn) % len(moments[stage])], signal)
        for turn, signal in enumerate(SIGNALS)
        for number, stage in enumerate(STAGES)
    ]


class Commands(Forks):
    """Whole commands in place of forks."""

    name = "commands"

    def resumed(self, root: Path, folder: Path, run: str, cell: Cell | None, log: Path) -> int:
        """`dreampolish resume RUN` in a process of its own, with the folder's store and MLflow; `NO_WAY_ON` as it says there."""
        ours = {
            "DREAMPOLISH_STORE": str(folder / "store"),
            "PREFECT_HOME": str(root / "prefect"),
            "PYTHONPATH": str(PROJECT),
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))} | ours
        command = [
            sys.executable,
            str(Path(__file__).with_name("cut_command.py")),
            cell.name if cell else "nowhere",
            "resume",
            run,
        ]
        with log.open("w") as said:
            code = subprocess.run(
                command, cwd=folder, env=environment, stdout=said, stderr=said, timeout=LIMIT_S, check=False
            ).returncode  # fmt: skip
        last = log.read_text().strip().rpartition("\n")[2]
        return NO_WAY_ON if code == 130 and "go on with: dreampolish resume" not in last else code

    def untold(self, cell: Cell, run: str, folder: Path, whole: Path) -> list[str]:
        """Nothing: MLflow is there, and journals go once it has them."""
        return []


if __name__ == "__main__":
    main(Commands(), command_cells())
