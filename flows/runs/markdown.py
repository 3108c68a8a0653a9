"""Words that somebody gave, inside Markdown: no links, pictures, columns or emphasis come out of them."""

from stages.runtime.tracking.messages import printable

MARKS = "\\`*_{}[]<>()#!|&~$"


def escaped(text: object) -> str:
    """A text as plain words."""
    return "".join(f"\\{letter}" if letter in MARKS else letter for letter in printable(str(text)))


def code(text: object) -> str:
    """A text for between backquotes."""
    return printable(str(text)).replace("`", "'")
