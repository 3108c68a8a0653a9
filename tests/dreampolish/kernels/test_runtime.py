"""Where compiled kernels go, what is said while they compile, and kernels in a forked child."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreampolish.kernels.announce import announce, announcing
from dreampolish.kernels.cache import cache_folder

PROJECT = Path(__file__).parents[3]

CALL = """
import torch
from dreampolish.fields.hash_grid import GridSizes, HashGrid
from dreampolish.kernels.announce import announcing
grid = HashGrid(GridSizes(1, 1, 2, 1.0, 64, 1.0), torch.Generator().manual_seed(0))
with announcing(lambda words: print("said:", words)):
    print(float(grid(torch.zeros(1, 3)).sum()))
"""


FORK = """
import os, torch
from dreampolish.fields.hash_grid import GridSizes, HashGrid
torch.set_num_threads(2)
grid = HashGrid(GridSizes(4, 2, 4, 2.0, 1024, 1.0), torch.Generator().manual_seed(0))
points = torch.rand(10_000, 3, generator=torch.Generator().manual_seed(1))
expected = grid(points).detach().numpy()
child = os.fork()
if child == 0:
    print((grid(points).detach().numpy() == expected).all(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def call(environment: dict[str, str], code: str = CALL) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *filter(None, sys.path)]), **environment}
    return subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True, timeout=120)


def test_a_named_folder_is_taken_and_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMPOLISH_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_without_a_name_it_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DREAMPOLISH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dreampolish"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "dreampolish"


def test_a_folder_that_cannot_be_made_gives_a_private_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DREAMPOLISH_CACHE", str(tmp_path / "file" / "cache"))
    folder = cache_folder()
    assert folder.is_dir()
    assert folder.stat().st_mode & 0o077 == 0


def test_the_announcement_goes_to_the_nearest_listener_and_nowhere_without_one() -> None:
    heard: list[str] = []
    with announcing(lambda words: heard.append(f"outer {words}")):
        with announcing(lambda words: heard.append(f"inner {words}")):
            announce("a")
        announce("b")
    announce("c")
    assert heard == ["inner a", "outer b"]


@pytest.mark.slow
def test_compiling_is_said_once_and_nothing_else_is_written(tmp_path: Path) -> None:
    first = call({"DREAMPOLISH_CACHE": str(tmp_path)})
    second = call({"DREAMPOLISH_CACHE": str(tmp_path)})
    value = second.stdout.strip()
    assert first.stdout.splitlines()[0].startswith("said: compiling kernels for the CPU, once, about ")
    assert first.stdout.splitlines()[1:] == [value]
    assert "Warp" not in first.stderr + second.stderr


def test_kernels_work_in_a_forked_child() -> None:
    """On two threads, after the parent has used them: a pool of threads would not survive the fork, as torch's own does not."""
    assert call({}, FORK).stdout.split() == ["True"]
