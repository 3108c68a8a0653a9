"""Every setting is explained in one line, and docs/choices.md says what the code says."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

from schemas.config.presets import load_config, names
from schemas.config.run import Config
from schemas.config.shared.schedule import Ramp
from schemas.trainings import PriorsTraining
from stages.runtime.files import CONFIGS, PROJECT

LONGEST = 140
"""Characters of a setting's line."""
SOURCES = sorted((PROJECT / "schemas" / "config").rglob("*.py"))
SOURCES += [PROJECT / "schemas" / "trainings.py"]
CHOICES = (PROJECT / "docs" / "choices.md").read_text().splitlines()


def _docstring_after(body: list[ast.stmt], index: int) -> str | None:
    match body[index + 1 : index + 2]:
        case [ast.Expr(value=ast.Constant(value=str(text)))]:
            return text
    return None


def _settings(source: Path) -> Iterator[tuple[str, str, str | None, list[str]]]:
    """Class, field, docstring and bases of every setting in a file."""
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ClassDef):
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            for index, statement in enumerate(node.body):
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield node.name, statement.target.id, _docstring_after(node.body, index), bases


def test_every_setting_has_one_line() -> None:
    found = {(owner, name): (text, bases) for source in SOURCES for owner, name, text, bases in _settings(source)}
    parents: dict[str, list[str]] = {}
    for source in SOURCES:
        for node in ast.parse(source.read_text()).body:
            if isinstance(node, ast.ClassDef):
                parents[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def line(owner: str, name: str) -> str | None:
        """A setting that only gets another default keeps the line of the class that it comes from."""
        own = found.get((owner, name), (None, []))[0]
        return own or next((text for base in parents.get(owner, []) if (text := line(base, name))), None)

    assert len(found) > 150
    for owner, name in found:
        text = line(owner, name)
        assert text is not None, f"{owner}.{name} has no docstring"
        assert text.strip(), f"{owner}.{name} has an empty docstring"
        assert "\n" not in text, f"{owner}.{name} has a docstring of more than one line"
        assert len(text) <= LONGEST, f"{owner}.{name} has a docstring of {len(text)} characters"


def _rows(preset: str) -> list[tuple[str, str]]:
    """Names and values of the tables of docs/choices.md: those of the `sd` preset, or all others."""
    at = CHOICES.index("## The `sd` preset")
    lines = CHOICES[at:] if preset == "sd" else CHOICES[:at]
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("| `")]
    return [
        (name.strip().removeprefix("| ").strip("`"), value)
        for row in cells
        for name, value in zip(row[0].split(", "), row[1].split("; "), strict=True)
    ]


def _shown(value: object) -> str:
    """A value as docs/choices.md has it; "-" for what is no number or word."""
    match value:
        case Ramp():
            return (
                f"{value.start:g}"
                if value.start == value.end
                else f"{value.start:g} -> {value.end:g} from {value.begin:g} to {value.until:g}"
            )
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case int() | str():
            return str(value)
        case tuple():
            return ", ".join(_shown(part) for part in value)
    return "-"


def _value(name: str, preset: str) -> object:
    root, _, rest = name.partition(".")
    if root in ("dreampolish", "stages", "flows"):
        module, _, constant = name.rpartition(".")
        return getattr(importlib.import_module(module), constant)
    if root == "trainings":
        return reduce(getattr, rest.split("."), PriorsTraining())
    return reduce(getattr, name.split("."), load_config(preset, CONFIGS, []))


@pytest.mark.parametrize("preset", ["home", "sd"])
def test_the_table_of_choices_names_settings_and_constants_with_their_values(preset: str) -> None:
    rows = _rows(preset)
    assert len(rows) > (10 if preset == "sd" else 100)
    assert len({name for name, _ in rows}) == len(rows)
    for name, value in rows:
        assert _shown(_value(name, preset)) == value, name


def _constants_of_choice() -> Iterator[str]:
    """Full names of the constants whose docstring says [choice]."""
    for folder in ("dreampolish", "stages/guidance", "flows/runs/memory"):
        for source in sorted((PROJECT / folder).rglob("*.py")):
            module = ".".join(source.relative_to(PROJECT).with_suffix("").parts)
            body = ast.parse(source.read_text()).body
            for index, node in enumerate(body):
                if isinstance(node, ast.Assign) and "[choice]" in (_docstring_after(body, index) or ""):
                    names = [each for target in node.targets for each in ast.walk(target) if isinstance(each, ast.Name)]
                    yield from (f"{module}.{each.id}" for each in names)


def test_every_constant_of_choice_has_a_row() -> None:
    constants = set(_constants_of_choice())
    assert len(constants) > 60
    assert constants - {name for name, _ in _rows("home")} == set()


MATTERING = re.compile(r"(steps|weight|guidance_scale|\blambda_\w+|\banchors\.(rgb|mask|normal|drift))$")
"""Settings that must have a row: whoever reads a figure asks for these first."""


def test_every_number_of_steps_guidance_scale_and_weight_has_a_row() -> None:
    mattering = {name for name in names(Config) if MATTERING.search(name)}
    assert {"nerf.steps", "texture.guidance_scale", "texture.lambda_stable", "polish.anchors.normal"} <= mattering
    assert mattering - {name for name, _ in _rows("home")} == set()
