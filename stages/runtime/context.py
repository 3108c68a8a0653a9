"""What all stages of a run share, and the seeds and device of one."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, PrivateAttr

from schemas.artifacts import Artifact, StageName
from schemas.config.run import PriorsConfig
from schemas.plans import MemoryPlan
from schemas.runs import RunRecord, StageRecord
from stages.runtime.errors import StageError
from stages.runtime.files import project_file

Listener = Callable[[StageRecord, Artifact], None]
"""Called after every stage with its record and its result."""
StepListener = Callable[[StageName, int], None]
"""Called after every step with the stage's name and the number of finished steps."""


class RunContext(BaseModel):
    """What all stages of one run share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    store: Path
    seed: int
    device: str
    """auto, cpu, cuda or cuda:N."""
    threads: int
    checkpoint_interval: int
    priors: PriorsConfig
    tracking_uri: str | None = None
    """Of the tracker; None switches tracking off."""
    show_progress: bool = False
    """A moving line on the terminal."""
    log_steps: bool = True
    """Whether figures and pictures of the steps are journalled, sent and shown at all; False is for measuring what that costs."""
    plan: MemoryPlan | None = None
    """How stages use a GPU's memory; None: as if there were enough. It enters no key: results differ by rounding alone."""
    taken_over: Mapping[StageName, str] = {}
    """Keys of results that the run has from another run and does not compute."""

    _listeners: list[Listener] = PrivateAttr(default_factory=list)
    _step_listeners: list[StepListener] = PrivateAttr(default_factory=list)

    @property
    def torch_device(self) -> torch.device:
        """The device the names means on this machine. Raises StageError for one that is not there."""
        return device_from_name(self.device)

    def prior_folder(self, source: str) -> Path | str:
        """A prior's folder, relative sources starting at the project; a hub id (owner/name, no such folder) stays a string."""
        folder = project_file(source)
        return folder if folder.exists() or source.count("/") != 1 or source.startswith(("priors/", ".")) else source

    def listen(self, listener: Listener) -> None:
        """Call `listener` after every stage of this run."""
        self._listeners.append(listener)

    def listen_to_steps(self, listener: StepListener) -> None:
        """Call `listener` after every step of this run's stages."""
        self._step_listeners.append(listener)

    def announce_step(self, stage: StageName, step: int) -> None:
        """Tell the listeners that a stage has done so many steps."""
        for listener in self._step_listeners:
            listener(stage, step)

    def announce(self, record: StageRecord, artifact: Artifact) -> None:
        """Tell the listeners that a stage has ended."""
        for listener in self._listeners:
            listener(record, artifact)


def context_of(record: RunRecord, store: Path, tracking_uri: str | None, *, show_progress: bool) -> RunContext:
    """The context that a run's stages share."""
    config = record.config
    taken = {name: entry.fingerprint for name, entry in record.stages.items() if name not in (record.computes or (name,))}
    return RunContext(
        run_id=record.run,
        store=store,
        seed=config.seed,
        device=config.device,
        threads=config.threads,
        checkpoint_interval=config.checkpoint_interval,
        priors=config.priors,
        tracking_uri=tracking_uri,
        show_progress=show_progress,
        plan=record.plan,
        taken_over=taken,
    )


def device_from_name(name: str) -> torch.device:
    """auto (CUDA if there is one), cpu, cuda or cuda:N. Raises StageError for a device this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise StageError(f"no device {name} on this machine", None, "use --set device=cpu")
    return device


def stage_seed(seed: int, stage: str) -> int:
    """The seed of one stage: stages draw independent streams, and none depends on which others ran before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:7], "big")


def seeded_generator(seed: int, stage: str, device: torch.device) -> torch.Generator:
    """A stage's own generator."""
    return torch.Generator(device=device).manual_seed(stage_seed(seed, stage))
