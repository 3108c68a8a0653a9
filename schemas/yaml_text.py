"""YAML that somebody else wrote, read in bounded time and memory: aliases may not multiply its content, and nothing is nested deeply."""

from typing import Any

import yaml

CHARACTERS = 200_000
VALUES = 10_000
"""Values of a document, each alias counted as all that it stands for."""
DEPTH = 30


def read_yaml(text: str) -> Any:
    """The content of one document. Raises yaml.YAMLError for what is no YAML, and for one that is out of the bounds above."""
    if len(text) > CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters, the limit is {CHARACTERS}")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        if _count(root, {}) > VALUES:
            raise yaml.YAMLError(f"it stands for more than {VALUES} values")
        return loader.construct_document(root)
    except (RecursionError, ValueError, OverflowError) as error:
        # PyYAML lets what Python's int() and date() say of a value through.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """PyYAML's safe loader, which knows plain values alone, with an end to nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth == DEPTH:
            raise yaml.YAMLError(f"it is nested more than {DEPTH} deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for. known: those of nodes seen before, by identity; -1 while a node is being counted."""
    if known.get(id(node)) == -1:
        raise yaml.YAMLError("an alias stands inside what it stands for")
    if id(node) not in known:
        known[id(node)] = -1
        inner = node.value if isinstance(node.value, list) else []
        children = [each for entry in inner for each in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return known[id(node)]


def told(error: yaml.YAMLError) -> str:
    """What is wrong and in which line, without the text around it."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1}"
    return f"{problem or error}{where}".replace("\n", " ")
