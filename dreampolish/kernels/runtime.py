"""Warp, started when the first kernel is called: where compiled kernels are kept, what is said while they compile, and launches.

The kernels of this package are one Warp module: it is compiled once for the processor (by LLVM) and once for each kind of GPU (by
NVRTC), both of which the package brings along, and read from the cache folder from then on.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import warp as wp

from dreampolish.kernels.announce import announce
from dreampolish.kernels.cache import cache_folder

MODULE = "dreampolish"
"""Warp's name for all kernels of this package."""

_ABOUT_S = {"cpu": 20, "cuda": 40}
"""What compiling takes, seconds, by the kind of device. (measured on one core of a busy machine; CUDA's is a guess)"""

_FEW = 4096
"""Items below which one thread is faster than two: starting a thread costs some 100 microseconds."""


_started = threading.Lock()
_ready: set[str] = set()
"""Devices whose kernels are loaded in this process."""


def prepare(device: torch.device) -> None:
    """Start Warp and load the kernels for a device, compiling them the first time. Every launch does this by itself."""
    name = wp_device(device)
    if name in _ready:
        return
    with _started:
        if name in _ready:
            return
        _start()
        kernels = Path(str(wp.config.kernel_cache_dir))
        mark = kernels / f"{device.type}-{_digest()}"
        if not mark.exists():
            announce(f"compiling kernels for the {device.type.upper()}, once, about {_ABOUT_S[device.type]} s")
        wp.load_module(wp.get_module(MODULE), device=name)
        mark.touch()
        _ready.add(name)


def _start() -> None:
    if wp.config.kernel_cache_dir is None:
        wp.config.kernel_cache_dir = str(cache_folder() / "kernels")
        wp.config.log_level = wp.LOG_ERROR
        with _no_complaint():
            wp.init()


@contextmanager
def _no_complaint() -> Iterator[None]:
    """Without a GPU Warp's library writes to the error stream that there is none; keep that line away."""
    if torch.cuda.is_available():
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _digest() -> str:
    """Of the sources of all kernels and of Warp's version."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources) + wp.__version__.encode()).hexdigest()[:16]


def wp_device(device: torch.device) -> str:
    """Warp's name of a device."""
    return "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"


def launch(kernel: Any, n: int, arguments: Sequence[Any]) -> None:
    """Run a kernel on `n` items. See `launch_rows`, of which this is one row."""
    launch_rows(kernel, (1, n), arguments)


def launch_rows(kernel: Any, shape: tuple[int, int], arguments: Sequence[Any]) -> None:
    """Run a kernel on rows x n items, row by row. The kernel's last argument is the first row of the launch.

    arguments: contiguous tensors, the first of which tells the device, and numbers. On a CPU the rows are shared out over as many
    threads as torch uses. A row is always done by one thread, in order: a kernel that adds up within its own row gives the same bits
    whatever the number of threads. On a GPU all items run at once, on torch's current stream.
    """
    rows, n = shape
    if not n or not rows:
        return
    device = arguments[0].device
    prepare(device)
    given = [wp.from_torch(each, return_ctype=True) if isinstance(each, torch.Tensor) else each for each in arguments]
    if device.type == "cuda":
        stream = wp.stream_from_torch(torch.cuda.current_stream(device))
        wp.launch(kernel, dim=shape, inputs=[*given, 0], device=wp_device(device), stream=stream)
        return
    threads = min(torch.get_num_threads(), rows) if n >= _FEW else 1
    if threads == 1:
        wp.launch(kernel, dim=shape, inputs=[*given, 0], device="cpu")
        return
    waiting = [wp.launch(kernel, dim=(1, n), inputs=[*given, row], device="cpu", record_cmd=True) for row in range(rows)]
    _share_out(waiting, threads)


def _share_out(waiting: list[Any], threads: int) -> None:
    """Do recorded launches, the last first, on some threads of which the caller's is one."""

    def work() -> None:
        while True:
            try:
                command = waiting.pop()
            except IndexError:
                return
            command.launch()

    # Started anew each time: a pool would not survive a fork.
    others = [threading.Thread(target=work) for _ in range(threads - 1)]
    for each in others:
        each.start()
    work()
    for each in others:
        each.join()
