"""The one place where lines for a person are written to the terminal: what a name or a file smuggled into them has no effect there."""

import sys
from typing import Literal


def printable(text: str) -> str:
    r"""A text with its control, direction and other invisible characters written out (`\x1b`): a terminal shows them and obeys none."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def write_line(text: str, stream: Literal["out", "error"]) -> None:
    """One line on the output or error stream; line breaks inside become spaces, other control characters are written out."""
    line = printable(" ".join(text.splitlines()))
    file = sys.stdout if stream == "out" else sys.stderr
    try:
        file.write(line + "\n")
    except UnicodeEncodeError:
        file.write(line.encode(file.encoding, "backslashreplace").decode(file.encoding) + "\n")
    file.flush()
