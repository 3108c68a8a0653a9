"""How the code is laid out: rules that no linter here knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
SPREADING = {"Sequential", "view", "reshape"}
"""Functions of torch that take any number of alike arguments."""
SWITCHES = {"requires_grad_"}
"""Methods of torch whose name says what their one boolean means."""
MOST_BY_PLACE, MOST_ENTRIES = 4, 12


def _calls(folder: str) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(PROJECT)}:{node.lineno} {ast.unparse(node.func)[-40:]}", node


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


@pytest.mark.parametrize("folder", ["dreampolish"])
def test_no_call_has_five_arguments_by_place(folder: str) -> None:
    many = [where for where, call in _calls(folder) if len(call.args) > MOST_BY_PLACE and _name(call) not in SPREADING]
    assert many == []


@pytest.mark.parametrize("folder", ["dreampolish"])
def test_no_boolean_is_given_by_place(folder: str) -> None:
    def has_boolean(call: ast.Call) -> bool:
        return any(isinstance(value, ast.Constant) and isinstance(value.value, bool) for value in call.args)

    assert [where for where, call in _calls(folder) if has_boolean(call) and _name(call) not in SWITCHES] == []


@pytest.mark.parametrize("folder", ["dreampolish"])
def test_no_folder_has_more_than_twelve_entries(folder: str) -> None:
    folders = [PROJECT / folder, *(path for path in (PROJECT / folder).rglob("*") if path.is_dir())]
    entries = {path: [entry for entry in path.iterdir() if entry.name != "__pycache__"] for path in folders}
    assert {str(path): len(found) for path, found in entries.items() if len(found) > MOST_ENTRIES} == {}
