"""What pip installs: the packages and, with them, the presets, the weights and the benchmark; and for which Python make does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

PROJECT = Path(__file__).parents[2]
PACKAGES = ("dreampolish", "flows", "schemas", "stages")
SHIPPED = "dreampolish/shipped"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel; nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    building = ["build", "--build-base", str(folder / "build")]
    packing = ["bdist_wheel", "--bdist-dir", str(folder / "bdist"), "--dist-dir", str(folder), "--compression", "stored"]
    words = ["setup.py", "--quiet", "egg_info", "--egg-base", str(folder), *building, *packing]
    ended = subprocess.run([sys.executable, *words], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_packages_with_presets_weights_and_benchmark(wheel: Path) -> None:
    held = set(ZipFile(wheel).namelist())
    own = [path for package in PACKAGES for path in (PROJECT / package).rglob("*") if path.is_file()]
    own = [path for path in own if "__pycache__" not in path.parts]
    assert [str(path) for path in own if path.relative_to(PROJECT).as_posix() not in held] == []
    beside = [PROJECT / "prefect.yaml", *(PROJECT / "configs").rglob("*.yaml"), *(PROJECT / "configs" / "data").iterdir()]
    beside += [*(PROJECT / "priors" / "home").rglob("*.safetensors"), *(PROJECT / "priors" / "home").rglob("*.json")]
    beside += [PROJECT / "benchmark" / "objects" / "prompts.txt", *(PROJECT / "benchmark").rglob("mesh.glb")]
    assert len(beside) > 30
    assert [str(path) for path in beside if f"{SHIPPED}/{path.relative_to(PROJECT).as_posix()}" not in held] == []


def test_an_installed_package_finds_them_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    ZipFile(wheel).extractall(site)
    script = (
        "from pathlib import Path\n"
        "from flows.ablation.plan import study_path\n"
        "from flows.benchmark.subjects import found_subjects, objects_folder, prompts_of\n"
        "from flows.runs.create import CONFIGS, check_priors, new_run\n"
        "from stages.runtime.files import project_file\n"
        "record = new_run(Path('store').resolve(), 'a red armchair', 'smoke', [], None)\n"
        "objects = objects_folder(Path('benchmark/objects'))\n"
        "print(CONFIGS, project_file(record.config.priors.text.source), study_path(Path('polish')), objects, sep='\\n')\n"
        "print(len(found_subjects(objects, [], 0.0)), len(prompts_of(Path('.'))))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=here, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    *paths, counts = ended.stdout.splitlines()
    assert paths == [
        str(site / SHIPPED / name)
        for name in ("configs", "priors/home/text", "configs/ablations/polish.yaml", "benchmark/objects")
    ]
    assert counts == "10 8"


def test_a_checkout_reads_its_own_files() -> None:
    from stages.runtime.files import project_file

    assert project_file("priors/home") == PROJECT / "priors" / "home"
    assert project_file("/weights") == Path("/weights")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.13": 1, "python3.12": 0, "python3.11": 0, "python3": 0}, "python3.12"),
        ({"python3.13": 0, "python3.11": 0}, "python3.13"),
        ({"python3.11": 1, "python3": 0}, "python3"),
        ({"python3": 1}, None),
        ({}, None),
    ],
)
def test_make_takes_the_newest_python_that_will_do(tmp_path: Path, there: dict[str, int], taken: str | None) -> None:
    for tool in ("make", "sh", "grep", "test"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/bin/false")
    for name, code in there.items():
        (tmp_path / name).write_text(f"#!{shutil.which('sh')}\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    dry = ["--dry-run"] if taken is not None else []
    ended = subprocess.run(
        [tmp_path / "make", *dry, f"VENV={tmp_path / 'made'}", "venv"],
        cwd=PROJECT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if taken is not None:
        assert f"{tmp_path / taken} -m venv {tmp_path / 'made'}\n" in ended.stdout
    else:
        assert (ended.returncode, ended.stderr.splitlines()[0][:42]) == (2, "no Python 3.11, 3.12 or 3.13 with venv on ")
        assert not (tmp_path / "made").exists()
