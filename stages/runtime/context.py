"""What all stages of a run share, and the seeds and device of one."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, PrivateAttr

from schemas.artifacts import Artifact, ScoresArtifact, StageName
from schemas.config.run import Precision, PriorsConfig, Threads
from schemas.plans import CARDS_GIB, MemoryPlan
from schemas.runs import RunRecord, StageRecord
from stages.runtime.errors import StageError
from stages.runtime.files import project_file

Listener = Callable[[StageRecord, Artifact], None]
"""Called after every stage with its record and its result."""
StepListener = Callable[[StageName, int], None]
"""Called after every step with the stage's name and the number of finished steps."""
GIB = 2**30


class RunContext(BaseModel):
    """What all stages of one run share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    store: Path
    seed: int
    device: str
    """auto, cpu, cuda or cuda:N."""
    threads: int
    deterministic: bool = False
    """On a GPU: deterministic algorithms alone. A CPU's always are."""
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

    @property
    def precision(self) -> Precision:
        """The number format of the priors' networks. auto: bfloat16 on a CPU that multiplies matrices in it (AMX), where the home
        U-Nets are 1.4 to 2.2 times faster; else float32."""
        named = self.priors.precision
        if named != "auto":
            return named
        return "bfloat16" if self.torch_device.type == "cpu" and torch.cpu.get_capabilities().get("amx_bf16") else "float32"

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
        threads=threads_from_setting(config.threads),
        deterministic=config.deterministic,
        checkpoint_interval=config.checkpoint_interval,
        priors=config.priors,
        tracking_uri=tracking_uri,
        show_progress=show_progress,
        plan=record.plan,
        taken_over=taken,
    )


MOST_THREADS = 8
"""Of `threads: auto`; more than two were never measured."""


def threads_from_setting(threads: Threads) -> int:
    """How many threads compute. auto: OMP_NUM_THREADS where it is set, else the cores that this process may use, at most 8.

    Not by how busy the machine is: a resumed stage computes with as many, so that its bits are the same.
    """
    if threads != "auto":
        return threads
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(said) if said.isdigit() and int(said) > 0 else usable_cores(), MOST_THREADS)


def usable_cores() -> int:
    """Cores that this process may use: of those it is bound to, no more than its control group's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


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


def set_up_torch(run: RunContext, stage: str) -> None:
    """Threads, determinism and the global seed of a stage.

    On a CPU, or where the run says so, algorithms are deterministic: several threads would else add up gradients of indexing in any order.
    """
    torch.set_num_threads(run.threads)
    # `use_deterministic_algorithms` does the same and imports torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("warn" if run.deterministic or run.torch_device.type == "cpu" else "default")
    # Else each new tensor is filled first, which finds faults and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(stage_seed(run.seed, stage))


def seeded_generator(seed: int, stage: str, device: torch.device) -> torch.Generator:
    """A stage's own generator."""
    return torch.Generator(device=device).manual_seed(stage_seed(seed, stage))


class Scorer(Protocol):
    """Looks at a stage's result: figures and pictures with a key of their own."""

    def key(self, run: RunContext, artifact: Artifact, reference: Artifact, settings: BaseModel) -> str:
        """The key of the scores; nothing is computed."""
        ...

    def compute(self, stage: Any, artifact: Artifact, reference: Artifact, settings: BaseModel) -> ScoresArtifact:
        """Render and judge."""
        ...


def memory_figures(name: StageName, run: RunContext, artifact: Artifact, *, is_new: bool) -> dict[str, float]:
    """GiB that a stage's tensors took of a GPU, and what the plan had for all of it; nothing on a CPU. is_new: whether this run, with
    its plan, computed it."""
    if not artifact.cuda_peak_memory:
        return {}
    planned = run.plan.stages[name].total_gib if is_new and run.plan is not None and name in run.plan.stages else None
    return {"cuda_peak_gib": artifact.cuda_peak_memory / GIB} | ({} if planned is None else {"cuda_planned_gib": planned})


def out_of_memory(name: StageName, run: RunContext) -> StageError:
    """CUDA ran out of memory in a stage: what to resume the run with."""
    planned = "without a plan" if run.plan is None else f"planned for {run.plan.limit_gib:.1f} GiB"
    smaller = [size for size in CARDS_GIB if run.plan is None or size < run.plan.limit_gib - 0.5]
    if run.plan is None or smaller:
        size = 8 if run.plan is None else smaller[-1]
        remedy = f"dreampolish resume {run.run_id} --vram {size} goes on in smaller parts, with what is finished"
    else:
        remedy = "close what else uses the card, or work at half the size in a new run: --set priors.text.image_size=256"
    return StageError(f"{name} ran out of CUDA memory, {planned}", None, remedy)
