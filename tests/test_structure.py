"""How the code is laid out: rules that no linter here knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FOLDERS = ("flows", "stages", "schemas", "dreampolish", "tests")
CALLING = ("flows", "stages", "schemas", "dreampolish", "tests/support")
SPREADING = {"Sequential", "view", "index8", "vec8", "reshape", "prior_digests"}
"""Functions that take any number of alike arguments."""
SWITCHES = {"requires_grad_"}
"""Methods of torch whose name says what their one boolean means."""
MOST_BY_PLACE, MOST_ENTRIES, LONGEST_FUNCTION, LONGEST_FILE = 4, 12, 60, 400


def _files(folder: str) -> list[Path]:
    return sorted((PROJECT / folder).rglob("*.py"))


def _calls(folder: str) -> Iterator[tuple[str, ast.Call]]:
    for path in _files(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(PROJECT)}:{node.lineno} {ast.unparse(node.func)[-40:]}", node


def _is_kernel(node: ast.AST) -> bool:
    """A function that triton or Warp compiles: one piece, called by place."""
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(each).startswith(("triton.jit", "wp.kernel", "wp.func")) for each in node.decorator_list
    )


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _is_crowded(call: ast.Call) -> bool:
    launched = isinstance(call.func, ast.Subscript)
    return len(call.args) > MOST_BY_PLACE and _name(call) not in SPREADING and not launched


@pytest.mark.parametrize("folder", CALLING)
def test_no_call_has_five_arguments_by_place(folder: str) -> None:
    many = [where for where, call in _calls(folder) if _is_crowded(call)]
    assert many == []


@pytest.mark.parametrize("folder", CALLING)
def test_no_boolean_is_given_by_place(folder: str) -> None:
    def has_boolean(call: ast.Call) -> bool:
        return any(isinstance(value, ast.Constant) and isinstance(value.value, bool) for value in call.args)

    assert [where for where, call in _calls(folder) if has_boolean(call) and _name(call) not in SWITCHES] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_folder_has_more_than_twelve_entries(folder: str) -> None:
    folders = [PROJECT / folder, *(path for path in (PROJECT / folder).rglob("*") if path.is_dir())]
    entries = {str(path): sum(entry.name != "__pycache__" for entry in path.iterdir()) for path in folders}
    assert {path: n for path, n in entries.items() if n > MOST_ENTRIES} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_carries_the_name_of_its_folder(folder: str) -> None:
    assert [str(path) for path in _files(folder) if path.stem.startswith(path.parent.name)] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_module_says_what_it_is(folder: str) -> None:
    assert [str(path) for path in _files(folder) if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_and_no_file_is_long(folder: str) -> None:
    def lines(node: ast.AST) -> int:
        return node.end_lineno - node.lineno + 1 if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else 0

    long = [str(path) for path in _files(folder) if len(path.read_text().splitlines()) > LONGEST_FILE]
    for path in _files(folder):
        nodes = ast.walk(ast.parse(path.read_text()))
        long += [f"{path}:{node.lineno}" for node in nodes if lines(node) > LONGEST_FUNCTION and not _is_kernel(node)]  # type: ignore[attr-defined]
    assert long == []
