"""Words for a person, on the terminal and in Markdown: what a name or a file smuggled into them has no effect there."""

import sys
from typing import Literal

MARKDOWN = "\\`*_{}[]<>()#!|&~$"
"""Letters that mean something in Markdown."""


def printable(text: str) -> str:
    r"""A text with its control, direction and other invisible characters written out (`\x1b`): a terminal shows them and obeys none."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def write_line(text: str, stream: Literal["out", "error"]) -> None:
    """One line on the output or error stream; line breaks inside become spaces, other control characters are written out.

    Nothing else writes to the terminal.
    """
    line = printable(" ".join(text.splitlines()))
    file = sys.stdout if stream == "out" else sys.stderr
    try:
        file.write(line + "\n")
    except UnicodeEncodeError:
        file.write(line.encode(file.encoding, "backslashreplace").decode(file.encoding) + "\n")
    file.flush()


def duration(seconds: float) -> str:
    """Seconds in words: 8 s, 2 min 05 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def escaped(text: object) -> str:
    """A text as plain words inside Markdown: no links, pictures, columns or emphasis come out of it."""
    return "".join(f"\\{letter}" if letter in MARKDOWN else letter for letter in printable(str(text)))


def in_backquotes(text: object) -> str:
    """A text for between Markdown's backquotes."""
    return printable(str(text)).replace("`", "'")
