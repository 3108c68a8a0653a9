"""What a stage tells while it runs: metrics and pictures to the tracker, how far it is to people."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from schemas.artifacts import Artifact
from schemas.runs import StageState


class StageProgress:
    """Metrics, pictures and the time left of one stage."""

    def __init__(
        self,
        name: str,
        store: Path,
        run_id: str,
        tracking_uri: str | None,
        tracking_run: str | None,
        show: bool,
    ) -> None:
        self.name = name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step."""

    def image(self, name: str, step: int, picture: np.ndarray) -> None:
        """A picture of a step."""

    def advance(self, step: int, total: int) -> None:
        """How far the stage is."""

    def finish(self, artifact: Artifact, state: StageState) -> None:
        """Final figures."""

    def close(self) -> None:
        """Flush."""
