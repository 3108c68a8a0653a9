"""Time and memory of a computation, kept beside its checkpoints, so that a resumed stage reports what all of it took."""

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError

from dreampolish.optim.atomic_files import write_atomically
from dreampolish.optim.checkpoints import Checkpoints


@dataclass(frozen=True)
class Cost:
    """seconds: of computing, waits between interruption and resumption left out. peak_memory: bytes. cuda_peak: bytes of GPUs' tensors."""

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    peak_memory: Annotated[int, Field(ge=0)] = 0
    cuda_peak: Annotated[int, Field(ge=0)] = 0


_COSTS = TypeAdapter(dict[int, Cost])


class CostedCheckpoints(Checkpoints):
    """Checkpoints with a file beside them, `costs.json`: by finished steps, the cost of the computation until then.

    The clock starts when this is made, and again at `begin`. What was spent after the last checkpoint before an interruption was lost
    and does not count.
    """

    def __init__(self, folder: Path, *, interval: int, keep: int) -> None:
        super().__init__(folder, interval=interval, keep=keep)
        self._costs_file = folder / "costs.json"
        self._before = Cost()
        self.begin()

    def begin(self) -> None:
        """Start the clock: the computation begins here."""
        self._started = time.monotonic()

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """As `Checkpoints.save`, and note the cost."""
        noted = {number: cost for number, cost in self._costs().items() if number < step} | {step: self.cost()}
        # Noted first and one more kept, so that wherever this is cut off, every whole checkpoint has its cost.
        newest = {number: noted[number] for number in sorted(noted)[-self.keep - 1 :]}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._costs_file, _COSTS.dump_json(newest))
        super().save(step, state)

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """As `Checkpoints.latest`; what follows counts as the continuation of the checkpoint found."""
        found = super().latest()
        self._before = self._costs().get(found[0], Cost()) if found is not None else Cost()
        return found

    def cost(self) -> Cost:
        """Of the whole computation so far."""
        seconds = self._before.seconds + time.monotonic() - self._started
        return Cost(seconds, max(self._before.peak_memory, peak_memory()), max(self._before.cuda_peak, cuda_peak_memory()))

    def _costs(self) -> dict[int, Cost]:
        """What the file holds; nothing where it is missing or cannot be read: costs are no reason to lose a checkpoint."""
        try:
            return _COSTS.validate_json(self._costs_file.read_bytes())
        except (OSError, ValidationError):
            return {}


def reset_peak_memory() -> None:
    """Start a new measurement of the process's largest resident size, where the kernel allows it, and of what tensors take of GPUs."""
    for device in range(_devices()):
        torch.cuda.reset_peak_memory_stats(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def cuda_peak_memory() -> int:
    """Most that tensors took of GPUs since `reset_peak_memory`, bytes; 0 where none is used."""
    return sum(torch.cuda.max_memory_allocated(device) for device in range(_devices()))


def _devices() -> int:
    """GPUs that this process may have used; asking others would start CUDA."""
    return torch.cuda.device_count() if torch.cuda.is_initialized() else 0


def peak_memory() -> int:
    """Largest resident size since `reset_peak_memory`, bytes; since the process's start where the kernel does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
