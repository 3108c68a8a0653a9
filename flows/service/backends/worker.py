"""A worker whose runs take folder, interpreter and environment from its own machine: the pool may be served by many.

`python -m flows.service.backends.worker [OPTION ...]` is `prefect worker start` with it.
"""

import sys
import warnings
from typing import Any

from prefect.utilities.processutils import command_to_string
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows.service.backends.runs import told_runs


class MachineJob(ProcessJobConfiguration):
    """A run's process. What the pool leaves open comes from the worker's machine."""

    def prepare_for_flow_run(self, *args: Any, **kwargs: Any) -> None:
        """Fill in command, folder and environment."""
        folder, environment = told_runs()
        self.command = self.command or command_to_string([sys.executable, "-m", "prefect.engine"])
        self.working_dir = self.working_dir or folder
        self.env = {**environment, **self.env}
        super().prepare_for_flow_run(*args, **kwargs)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Prefect warns of a worker that takes another's name

    class MachineWorker(ProcessWorker):
        """Prefect's process worker; under its name, so that Prefect's own command starts this one."""

        job_configuration = MachineJob


if __name__ == "__main__":
    from prefect.cli import app

    sys.argv[1:] = ["worker", "start", *sys.argv[1:]]
    app()
