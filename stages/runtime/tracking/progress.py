"""What a stage reports while it runs: metrics and pictures to the tracker, how far it is to Prefect and the terminal."""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from pathlib import Path
from uuid import UUID

import numpy as np

from schemas.artifacts import Artifact, NerfArtifact, SdfArtifact
from schemas.runs import StageRecord, StageState
from stages.runtime.tracking.files import folders_with_tag
from stages.runtime.tracking.journal import Journal, Place, place_from_store, run_page
from stages.runtime.tracking.live import LiveStage
from stages.runtime.tracking.messages import duration, write_line

SHARE = 0.05
"""Of a stage between two updates in Prefect."""
ERRAND_S = 10.0
"""For the last thing that was sent out, when a stage ends."""
LAST_S = 20.0
"""For the tracker to take what a stage that runs alone has left."""
HIGHER_IS_BETTER = ("psnr", "ssim", "alignment", "iou", "f_score")


_under_way: list[Future[None]] = []
"""The last sends of stages that have ended."""


def await_sends(timeout_s: float) -> None:
    """Wait until the tracker has what ended stages had left to send; what is not sent by then stays in the journals."""
    wait(_under_way, timeout=timeout_s)
    _under_way.clear()


def journal_name(stage: str, key: str) -> str:
    """Of a stage's journal in its run's folder."""
    return f"{stage}-{key[:12]}"


def in_a_task_run() -> bool:
    """Whether the caller is a Prefect task run."""
    from prefect.context import TaskRunContext

    return TaskRunContext.get() is not None


class StageProgress:
    """Metrics, pictures and the time left of one stage. Nothing here can end a stage: a report is not worth a result.

    What goes over a wire goes out on a thread, so that the steps need not wait; what goes into the journal is on disk at once.

    key: of the journal, `<stage>-<short fingerprint>`. tracking_uri: None keeps figures in the journal only.
    """

    def __init__(self, name: str, key: str, store: Path, run_id: str, tracking_uri: str | None, show: bool) -> None:
        self.name = name
        self._place: Place | None = None if tracking_uri is None else place_from_store(store, tracking_uri)
        self._journal = Journal(store / "journals" / run_id, key, name, {"stage": name, "dreampolish.run": run_id})
        self._live = LiveStage(store, run_id, name)
        self._status = TerminalLine(name) if show else None
        self._started, self._first_step = time.monotonic(), -1
        self._shown_share = 0.0
        self._prefect_artifact: UUID | None = None
        self._page: str | None = None
        self._silent = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"telling-{name}")
        self._errand: Future[None] | None = None
        self._ended = self._has_result = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step, less those that are not finite: what they come from ends the stage with its own words."""
        finite = {f"{self.name}/{key}": value for key, value in values.items() if math.isfinite(value)}
        self._journal.metrics(step, finite)
        place = self._place
        if place is not None and self._journal.send_is_due():
            self._send_out(lambda: self._journal.send_if_due(place))

    def image(self, name: str, step: int, picture: np.ndarray) -> None:
        """A picture of a step."""
        self._journal.image(f"{self.name}/{name}", step, picture)
        self._live.picture(name, picture)

    def params(self, values: Mapping[str, object]) -> None:
        """The stage's settings, once."""
        if self._journal.is_new:
            self._journal.params(values)

    def advance(self, step: int, total: int) -> None:
        """How far the stage is: the terminal's line each time, Prefect at every twentieth."""
        if self._first_step < 0:
            self._first_step, self._started = step, time.monotonic()
        left = self._seconds_left(step, total)
        self._live.progress(step, total, left)
        if self._status is not None:
            self._status.show(step, total, left)
        share = step / max(total, 1)
        due = share - self._shown_share >= SHARE or share >= 1.0 > self._shown_share
        if due and self._send_out(lambda: self._tell_prefect(share, left)):
            self._shown_share = share

    def say(self, words: str) -> None:
        """A line on what the stage does besides its steps: in the terminal's line while it lasts, else as a line of its own."""
        if self._status is not None and self._status.is_shown:
            self._status.say(words)
        else:
            write_line(f"{self.name}: {words}", "error")

    def _send_out(self, errand: Callable[[], None]) -> bool:
        """Do an errand on the thread, in this task run's context; False, and nothing is done, while the last one is not back."""
        if self._errand is not None and not self._errand.done():
            return False
        self._errand = self._thread.submit(copy_context().run, errand)
        return True

    def _errand_is_back(self) -> bool:
        """Whether the thread is free, after a short wait for it."""
        return self._errand is None or bool(wait([self._errand], timeout=ERRAND_S).done)

    def result(self, artifact: Artifact, state: StageState) -> None:
        """How the result came about, once: noted before it is published, so that no published result lacks it."""
        # A resumed run finds its own finished stages cached; they keep the state they got when they were computed.
        if self._has_result or (state == "cached" and not self._journal.is_new):
            return
        reason = {"switch_reason": artifact.switch_reason} if isinstance(artifact, NerfArtifact | SdfArtifact) else {}
        found = self._origin() if state == "cached" else {}
        self._journal.set_tags({"state": state, "fingerprint": artifact.fingerprint, **reason, **found})
        self._has_result = True

    def finish(self, artifact: Artifact, record: StageRecord) -> None:
        """Final and best figures; closes the stage's run at the tracker."""
        final = {f"final/{key}": value for key, value in record.metrics.items()}
        best = {f"best/{key}": value for key, value in self._best().items()}
        seconds = {"final/seconds": artifact.seconds, "final/peak_memory_mib": artifact.peak_memory / 2**20}
        self._journal.metrics(0, {**final, **best, **seconds})
        self.result(artifact, record.state)
        self._journal.end("FINISHED")
        self._ended = True
        if self._errand_is_back() and self._prefect_artifact is not None:
            # What follows a stage's last counted step (baking, publishing) is not counted.
            self._tell_prefect(1.0, None)

    def _origin(self) -> dict[str, str]:
        """Tags that lead from a result found in the store to the run that computed it, if its journal is still there."""
        folder, name = self._journal.folder, self._journal.name
        run = next((found.name for found in folders_with_tag(folder.parent, name, "state", ("computed", "resumed"))), None)
        if run is None:
            return {}
        words = f"Found in the store. Run {run} computed it; its `{self.name}` has the curves: search `tags.\"dreampolish.run\" = '{run}'`."
        return {"computed_in": run, "mlflow.note.content": words}

    def _best(self) -> dict[str, float]:
        """The best value of every curve that should rise, over all processes that drew it."""
        curves = {key.removeprefix(f"{self.name}/"): value for key, value in self._journal.largest.items() if "/" in key}
        return {
            key: value
            for key, value in curves.items()
            if key.rpartition("/")[2].startswith(HIGHER_IS_BETTER) and not key.startswith(("final/", "best/"))
        }

    def close(self) -> None:
        """Send what is left; a stage that did not finish is marked so."""
        if self._status is not None:
            self._status.clear()
        if not self._ended:
            # Before anything that may wait: a second signal can come at any time.
            self._journal.end("KILLED")
        place = self._place
        if place is not None:
            last = self._thread.submit(copy_context().run, lambda: self._send_the_rest(place))
            if in_a_task_run():
                # The next stage need not wait.
                _under_way.append(last)
            else:
                # What is not sent by then stays in the journal.
                wait([last], timeout=LAST_S)
        self._thread.shutdown(wait=False)

    def _send_the_rest(self, place: Place) -> None:
        self._journal.send(place)
        # A cached stage, too, leads to its curves.
        self._link_page()

    def _seconds_left(self, step: int, total: int) -> float | None:
        done = step - self._first_step
        return None if done < 1 else (time.monotonic() - self._started) / done * (total - step)

    def _tell_prefect(self, share: float, left: float | None) -> None:
        """A progress artifact of the current task run; without one, or without its server, nothing."""
        if self._silent or not in_a_task_run():
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        words = f"{self.name}: done" if share >= 1 else self.name if left is None else f"{self.name}: {duration(left)} left"
        page = self._link_page()
        words = f"{words}; [curves and pictures]({page})" if page else words
        try:
            if self._prefect_artifact is None:
                made = create_progress_artifact(share * 100, key=f"{self.name}-progress", description=words)
                self._prefect_artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._prefect_artifact, share * 100, description=words)
        except Exception:
            # The server's troubles are Prefect's to report; the stage goes on.
            self._silent = True

    def _link_page(self) -> str:
        """The page of the stage's run at the tracker, which the current task run then links to; empty while there is none."""
        if self._page is None and self._place is not None and in_a_task_run():
            from prefect.artifacts import create_link_artifact

            words = f"{self.name} in MLflow"
            try:
                self._page = run_page(self._journal.folder, self._journal.name, self._place)
                if self._page is not None:
                    create_link_artifact(self._page, words, key=f"{self.name}-mlflow", description="Curves, pictures, settings")
            except Exception:
                # The tracker is away; asking it again at each step would hold the stage up.
                self._page = ""
        return self._page or ""


class TerminalLine:
    """One line on the terminal's error stream that says how far a stage is; nothing when that is no terminal."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.status import Status

        self.name = name
        console = Console(stderr=True)
        self._status = Status(name, console=console, refresh_per_second=4) if console.is_terminal else None
        if self._status is not None:
            self._status.start()

    def show(self, step: int, total: int, left: float | None) -> None:
        """Replace the line."""
        if self._status is not None:
            rest = "" if left is None else f", {duration(left)} left"
            self._status.update(f"{self.name}: {step}/{total}{rest}")

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal."""
        return self._status is not None

    def say(self, words: str) -> None:
        """Replace the line by words."""
        if self._status is not None:
            self._status.update(f"{self.name}: {words}")

    def clear(self) -> None:
        """Remove the line."""
        if self._status is not None:
            self._status.stop()
