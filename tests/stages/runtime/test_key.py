"""Equal computations have equal fingerprints in every process and checkout; changed settings, parents, weights or code do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.config.run import Config
from schemas.runs import STAGES
from stages.runtime.key import PROJECT, code_digest, fingerprint, imported_modules

FILES = {
    "dreampolish/__init__.py": "",
    "dreampolish/field.py": "from dreampolish import grid\nimport torch\n",
    "dreampolish/grid.py": "SIZE = 3\n",
    "dreampolish/gltf.py": "VERSION = 2\n",
    "stages/__init__.py": "",
    "stages/nerf.py": "import dreampolish.field\n\nif __name__ == '__main__':\n    import stages.export\n",
    "stages/neus.py": "def late():\n    from .nerf import anything\n",
    "stages/export.py": "from dreampolish.gltf import VERSION\n",
    "stages/runtime/store.py": "from stages import determinism\nPLUMBING = 1\n",
    "stages/runtime/context.py": "SEED = 1\n",
    "stages/dmtet.py": "from stages.runtime.store import PLUMBING\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, source in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return tmp_path


def base(**changes: object) -> str:
    arguments: dict = {
        "stage": "nerf",
        "config": Config().nerf,
        "parents": {"reference": "a"},
        "priors": ["p", "q"],
        "inputs": {"seed": 0},
        "code": "c",
    }
    return fingerprint(**{**arguments, **changes})


def test_every_ingredient_counts() -> None:
    changed = [
        base(stage="neus"),
        base(config=Config().nerf.model_copy(update={"steps": 5})),
        base(parents={"reference": "b"}),
        base(parents={"nerf": "a"}),
        base(priors=["p"]),
        base(inputs={"seed": 1}),
        base(code="d"),
    ]
    assert len({base(), *changed}) == len(changed) + 1
    assert base(priors=["q", "p"]) == base()


def test_imports_are_followed_but_not_the_main_guard_nor_plumbing(checkout: Path) -> None:
    assert imported_modules("stages.nerf", checkout) == {
        "stages", "stages.nerf", "dreampolish", "dreampolish.field", "dreampolish.grid",
    }  # fmt: skip
    assert "stages.nerf" in imported_modules("stages.neus", checkout)


def test_an_edit_reaches_only_the_stages_behind_it(checkout: Path) -> None:
    before = {name: code_digest(f"stages.{name}", checkout) for name in ("nerf", "export")}
    (checkout / "dreampolish/gltf.py").write_text("VERSION = 3\n")
    assert code_digest("stages.nerf", checkout) == before["nerf"]
    assert code_digest("stages.export", checkout) != before["export"]
    (checkout / "dreampolish/grid.py").write_text("SIZE = 4\n")
    assert code_digest("stages.nerf", checkout) != before["nerf"]


def test_plumbing_is_looked_through(checkout: Path) -> None:
    """What plumbing imports and is none itself, such as the seeds, counts for every stage."""
    assert imported_modules("stages.dmtet", checkout) == {"stages", "stages.dmtet", "stages.runtime.context"}
    before = code_digest("stages.dmtet", checkout)
    (checkout / "stages/runtime/store.py").write_text("from stages import determinism\nPLUMBING = 2\n")
    assert code_digest("stages.dmtet", checkout) == before
    (checkout / "stages/runtime/context.py").write_text("SEED = 2\n")
    assert code_digest("stages.dmtet", checkout) != before


@pytest.mark.parametrize("stage", STAGES)
def test_the_seeds_of_every_real_stage_count(stage: str) -> None:
    assert "stages.runtime.context" in imported_modules(f"stages.{stage}", PROJECT)


def test_a_moved_checkout_has_the_same_digest(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("elsewhere") / "project"
    before = code_digest("stages.nerf", checkout)
    checkout.rename(moved)
    assert code_digest("stages.nerf", moved) == before


def test_a_missing_module_is_named(checkout: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"stages\.absent"):
        code_digest("stages.absent", checkout)


def test_equal_over_processes_and_hash_seeds() -> None:
    script = (
        "from schemas.config.run import Config; from stages.runtime.key import *;"
        "print(fingerprint('nerf', Config().nerf, {'b': '1', 'a': '2'}, ['q', 'p'], {'z': 1, 'y': None}, "
        "code_digest('stages.runtime.context', PROJECT)))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert len(answers.pop().strip()) == 64
