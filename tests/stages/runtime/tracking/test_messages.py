"""Names and files cannot steer the terminal: lines are written in one place, which writes control characters out."""

import ast

import pytest

from flows.benchmark.page import prompt_table
from flows.benchmark.statistics import PromptResult
from flows.runs.console import answer, say
from stages.runtime.files import PROJECT
from stages.runtime.tracking.messages import escaped, in_backquotes, printable, write_line

EVIL = "na\nme\x1b]0;pwned\x07\x1b[2J\x9b31m\u202egpj.\u2066\u200b\udcff"


def test_control_characters_are_written_out() -> None:
    assert printable(EVIL).isprintable()
    assert printable("\x1b[2J\u202e") == r"\x1b[2J\u202e"
    assert printable("ein grüner Stuhl, 椅子 “x” ½") == "ein grüner Stuhl, 椅子 “x” ½"


def test_each_line_is_one_line_and_shows_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    for write in (say, answer, lambda text: write_line(text, "error")):
        write(EVIL)
    told = capsys.readouterr()
    for line in (*told.out.splitlines(), *told.err.splitlines()):
        assert line == r"na me\x1b]0;pwned\x07\x1b[2J\x9b31m\u202egpj.\u2066\u200b\udcff"
    assert (len(told.out.splitlines()), len(told.err.splitlines())) == (1, 2)


def test_nothing_else_writes_to_the_terminal() -> None:
    """Besides it: the child process of a measurement, whose output a program reads."""
    writers = []
    for path in (path for folder in ("flows", "stages", "dreampolish") for path in (PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("sys.stdout.write", "sys.stderr.write", "print"):
                writers.append(f"{path.relative_to(PROJECT).as_posix()} {called}")
    assert writers == ["flows/benchmark/overhead.py sys.stdout.write"]


def test_a_prompt_stays_a_prompt_in_markdown() -> None:
    prompt = "a | [chair](http://x) ![p](http://y) <img src=x> `c` *b* _i_ $x$"
    assert escaped(prompt) == (r"a \| \[chair\]\(http://x\) \!\[p\]\(http://y\) \<img src=x\> \`c\` \*b\* \_i\_ \$x\$")
    assert in_backquotes("a`b\x1b") == r"a'b\x1b"
    row = prompt_table([PromptResult(prompt, "0123abcd", 1, 2, prompt, 0.5)]).splitlines()[-1]
    assert row.replace(r"\|", "").count("|") == 6
    assert "<img" not in row.replace(r"\<", "")
