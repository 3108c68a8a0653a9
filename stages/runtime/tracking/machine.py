"""The machine's figures while a run goes: CPU, memory and, where NVIDIA's library finds one, the GPU, under MLflow's own names.

They go into the run's journal as all figures do, from a thread of their own. MLflow's own monitor sends past any journal, and a kill
loses what it had not sent.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psutil

from stages.runtime.tracking.journal import Journal, Place, replay

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

PREFIX = "system/"
"""MLflow's page shows figures of this beginning under "System metrics"."""
SAMPLE_S = 10.0
SAMPLES_A_SEND = 3
SEND_WAIT_S = 2.0
"""For a stage that is sending its figures."""
END_S = 2.0
"""For the thread to end, when the run does."""


@contextmanager
def machine_watched(journal: Journal, place: Place | None, interval_s: float = SAMPLE_S) -> Iterator[None]:
    """Inside, note the machine's figures in a journal every `interval_s` seconds, and send them now and then.

    place: the tracker; None keeps them in the journal. Nothing here can end a run.
    """
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(journal, place, interval_s, over), name="machine-figures", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=END_S)


def _watch(journal: Journal, place: Place | None, interval_s: float, over: threading.Event) -> None:
    psutil.cpu_percent()  # the first answer stands for nothing
    monitors: list[BaseMetricsMonitor] = []
    step = journal.next_step(PREFIX)
    while not over.wait(interval_s):
        # MLflow takes seconds to import, and a run that is found in the store ends before its first figures.
        monitors = monitors or _monitors()
        try:
            journal.metrics(step, figures_of(monitors))
        except Exception as error:
            # A full disk is the stages' to tell.
            logging.getLogger(__name__).debug("no figures of the machine: %s", error)
            return
        step += 1
        if place is not None and step % SAMPLES_A_SEND == 0:
            with suppress(Exception):
                replay(journal.folder, journal.name, place, SEND_WAIT_S)


def _monitors() -> "list[BaseMetricsMonitor]":
    """MLflow's; that of the GPU raises where there is none, or no library to ask it with."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    found: list[BaseMetricsMonitor] = [CPUMonitor()]
    with suppress(ImportError, RuntimeError):
        found.append(GPUMonitor())
    return found


def figures_of(monitors: "list[BaseMetricsMonitor]") -> Mapping[str, float]:
    """Percentages and megabytes now, by MLflow's names; also the resident memory of this process."""
    figures = {f"{PREFIX}process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6}
    for monitor in monitors:
        monitor.collect_metrics()
        figures |= {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return figures
