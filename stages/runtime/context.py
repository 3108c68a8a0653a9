"""Seeds, devices and memory figures of a stage."""

import hashlib
import resource
from pathlib import Path

import torch

from stages.runtime.errors import StageError


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


def reset_peak_memory() -> None:
    """Start a new measurement of the process's largest resident size, where the kernel allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """Largest resident size since `reset_peak_memory`, bytes; since the process's start where the kernel does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
