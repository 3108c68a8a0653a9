"""What pyproject.toml cannot say: the wheel takes along configs, the embedded priors and the benchmark, as dreampolish/shipped."""

from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "priors/home", "benchmark", "deploy", "prefect.yaml")
LEFT_OUT = {"node_modules", "package-lock.json", "__pycache__"}


def shipped_files() -> Iterator[Path]:
    """Every file of SHIPPED. Raises FileNotFoundError where one is not there, as in a checkout without its weights."""
    for name in SHIPPED:
        found = [Path(name), *Path(name).rglob("*")]
        if not found[0].exists():
            raise FileNotFoundError(f"{name} belongs into the wheel and is not here")
        yield from (path for path in found if path.is_file() and not LEFT_OUT & set(path.parts))


class BuildWithFiles(build_py):
    """Copies them; an editable installation reads the checkout."""

    def run(self) -> None:
        """Build the packages, then copy."""
        super().run()
        if not self.editable_mode:
            for path in shipped_files():
                target = Path(self.build_lib, "dreampolish", "shipped", path)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(path), str(target))

    def get_source_files(self) -> list[str]:
        """For source packages, of which wheels may be made."""
        return [*super().get_source_files(), *map(str, shipped_files())]


setup(cmdclass={"build_py": BuildWithFiles})
