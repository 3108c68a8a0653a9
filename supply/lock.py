"""Writes requirements.lock, requirements-cuda.lock and requirements-cpu.lock from pyproject.toml, with the hashes of every wheel.

Versions stay as they are where pyproject.toml allows them; name a package to take its newest: `make lock NEWER=prefect`.
Needs `uv` on the PATH.
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
LOCK, CUDA_LOCK, CPU_LOCK = (PROJECT / f"requirements{kind}.lock" for kind in ("", "-cuda", "-cpu"))
CUDA = ("cuda-", "nvidia-", "triton")
"""Beginnings of the names of what only a CUDA build of torch needs."""
CPU_WHEELS = ("6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",)
"""Of torch 2.13.0+cpu for Python 3.11 on x86_64 Linux, which comes from PyTorch's own index; to be renewed with torch."""
HEAD = "# Written by `make lock`: exact versions, the hashes of all their files, Python 3.11 to 3.13. For pip's --require-hashes.\n"
EXTRAS = ("dvc", "dev")
"""The extras of pyproject.toml that `make` installs; others are the user's to add."""
CPU_HEAD = "# Written by `make lock`: torch's CPU build, tried first.\n"
CUDA_HEAD = "# Written by `make lock`: what a CUDA build of torch needs besides requirements.lock.\n"


def entries_of(text: str) -> dict[str, str]:
    """A lock's entries by the package's name: the requirement and, on lines of their own, its hashes."""
    found = re.finditer(r"^([A-Za-z0-9._-]+)==(?:.*\\\n)*.*$", text, flags=re.MULTILINE)
    return {entry[1]: entry[0] for entry in found}


def resolved(newer: list[str]) -> str:
    """What uv makes of pyproject.toml, for all Pythons and platforms at once."""
    kept = [f"{requirement_of(entry)}\n" for name, entry in locked().items() if name not in newer]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(kept))
        options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        command = [
            "uv",
            "pip",
            "compile",
            *options,
            "-c",
            str(constraints),
            "--extra",
            "dvc",
            "--extra",
            "dev",
            "pyproject.toml",
        ]
        return subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout


def locked() -> dict[str, str]:
    """The entries of both locks as they are."""
    return {name: entry for path in (LOCK, CUDA_LOCK) if path.exists() for name, entry in entries_of(path.read_text()).items()}


def requirement_of(entry: str) -> str:
    """An entry without its hashes and markers: `name==version`."""
    return re.split(r"[\s;\\]", entry, maxsplit=1)[0]


def with_cpu_wheels(entry: str) -> str:
    """torch's entry, with the hashes of its CPU builds."""
    return entry + "".join(f" \\\n    --hash=sha256:{digest}" for digest in CPU_WHEELS if digest not in entry)


def cpu_entry(entry: str) -> str:
    """The entry that asks for a CPU build of torch alone; pip finds none where only the registry is asked."""
    return f"{requirement_of(entry)}+cpu" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in CPU_WHEELS)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--newer", nargs="*", default=[], metavar="PACKAGE")
    entries = entries_of(resolved(parser.parse_args().newer))
    entries["torch"] = with_cpu_wheels(entries["torch"])
    cuda = {name for name in entries if name.startswith(CUDA)}
    LOCK.write_text(HEAD + "".join(f"{entry}\n" for name, entry in entries.items() if name not in cuda))
    CUDA_LOCK.write_text(CUDA_HEAD + "".join(f"{entry}\n" for name, entry in entries.items() if name in cuda))
    CPU_LOCK.write_text(CPU_HEAD + cpu_entry(entries["torch"]) + "\n")


if __name__ == "__main__":
    main()
