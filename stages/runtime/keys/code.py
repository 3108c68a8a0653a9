"""The code behind a function: a digest over every definition that it reaches by name.

A definition counts as its syntax tree without docstrings, comments, annotations and module paths: a moved function, a new docstring or a
new function beside an old one changes nothing; a changed constant, default or base class does. Attributes that are looked up by name
only at run time (`getattr`) are outside.
"""

import ast
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

OURS = ("dreampolish", "stages", "schemas", "flows")

ENDS = ("stages.runtime", "stages.results", "dreampolish.kernels.runtime")
"""Packages at which the walk ends: they move, lock, report, look at and judge results, or launch kernels, and choose no byte of them."""

ROOTS = (("schemas.config.shared.schedule", "Ramp"), ("schemas.config.shared.schedule", "Schedule"))
"""Definitions that count for every stage: settings reach them by attribute (`config.weight.at(...)`), not by name."""


@dataclass(frozen=True)
class Code:
    """What a function reaches. digest: of all definitions. names: `module.name` of each. libraries: packages of others that they use."""

    digest: str
    names: frozenset[str]
    libraries: frozenset[str]


@dataclass(frozen=True)
class _Statement:
    """What one statement of a module is and names. part: digest of its bare tree and of what it takes of other libraries."""

    tree: ast.AST
    """Kept, so that no other tree gets its identity."""
    part: str
    used: frozenset[str]
    imports: Mapping[str, tuple[str, str | None]]
    attributes: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class _Module:
    """A parsed source file: definitions and imports by name, and the statements that act when it is imported."""

    name: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    actions: list[ast.stmt] = field(default_factory=list)
    statements: dict[int, _Statement] = field(default_factory=dict)
    """By the tree's identity, those looked at: many stages reach the same ones."""


def code_of(module: str, function: str, root: Path, ends: Sequence[str] = ENDS) -> Code:
    """Everything that a function of a module reaches. root: the folder that holds the packages.

    The function's own decorators do not count. Raises KeyError for a function that is not there.
    """
    return _code_of(module, function, root, tuple(ends))


def code_of_module(module: str, root: Path) -> Code:
    """Everything that a whole module reaches, wherever it lies. Raises KeyError for a module that is not there."""
    walk = _Walk(root, ())
    found = _module(module, root)
    walk.act(found)
    for name in found.definitions:
        walk.reach(module, name)
    return walk.code()


@cache
def _code_of(module: str, function: str, root: Path, ends: tuple[str, ...]) -> Code:
    walk = _Walk(root, ends)
    walk.reach_root(module, function)
    for place, name in ROOTS:
        if _path(place, root) is not None:
            walk.reach(place, name)
    return walk.code()


class _Walk:
    """Follows names from definition to definition."""

    def __init__(self, root: Path, ends: tuple[str, ...]) -> None:
        self._root, self._ends = root, ends
        self._seen: set[tuple[str, str]] = set()
        self._visited: set[str] = set()
        self.parts: set[str] = set()
        self.names: set[str] = set()
        self.libraries: set[str] = set()

    def code(self) -> Code:
        """What was found."""
        parts = "\n".join(sorted(self.parts))
        return Code(hashlib.sha256(parts.encode()).hexdigest(), frozenset(self.names), frozenset(self.libraries))

    def reach_root(self, module: str, function: str) -> None:
        """The function itself, without its decorators."""
        found = _module(module, self._root)
        for node in found.definitions[function]:
            bare = copy.copy(node)
            if isinstance(bare, ast.FunctionDef | ast.ClassDef):
                bare.decorator_list = []
            self._count(found, function, bare)

    def reach(self, module: str, name: str) -> None:
        """One name of one of our modules: a definition, or what it imports under that name."""
        if any(module == end or module.startswith(f"{end}.") for end in self._ends) or (module, name) in self._seen:
            return
        self._seen.add((module, name))
        found = _module(module, self._root)
        self.act(found)
        if name in found.definitions:
            for node in found.definitions[name]:
                self._count(found, name, node)
        elif name in found.imports:
            self._follow(*found.imports[name])
        elif _path(f"{module}.{name}", self._root) is None:
            raise KeyError(f"{module} has no {name}")

    def act(self, module: _Module) -> None:
        """What a module does when it is imported counts, too."""
        if module.name not in self._visited:
            self._visited.add(module.name)
            for node in module.actions:
                self._count(module, "", node)

    def _count(self, module: _Module, name: str, node: ast.stmt) -> None:
        found = _statement(module, node, self._root)
        self.parts.add(found.part)
        self.names.add(f"{module.name}.{name}")
        for each in found.used - {name}:
            if each in found.imports:
                self._follow(*found.imports[each], found.attributes.get(each, frozenset()))
            elif each in module.definitions:
                self.reach(module.name, each)

    def _follow(self, module: str, name: str | None, attributes: frozenset[str] = frozenset()) -> None:
        """An imported name: ours is walked, a library's is noted."""
        if module.split(".")[0] not in OURS:
            self.libraries.add(module.split(".")[0])
        elif name is not None and _path(f"{module}.{name}", self._root) is None:
            self.reach(module, name)
        else:
            # A module of ours under a name: what is used of it counts.
            whole = module if name is None else f"{module}.{name}"
            for attribute in attributes:
                self.reach(whole, attribute)


def _statement(module: _Module, node: ast.stmt, root: Path) -> _Statement:
    """A statement of a module, looked at once in a process. Its tree is stripped in place: nobody else reads it."""
    known = module.statements.get(id(node))
    if known is not None:
        return known
    plain = _Plain().visit(node)
    imports = {**module.imports, **_imports_in(plain, module.name, root)}
    used = _used_names(plain)
    outside = [
        f"{each}={'.'.join(filter(None, imports[each]))}" for each in used if each in imports and not _is_ours(imports[each])
    ]
    # An import of ours inside a function is a path: what it names is followed.
    part = hashlib.sha256("\n".join([ast.dump(_WithoutOurImports().visit(plain)), *sorted(outside)]).encode()).hexdigest()
    named = {each: imports[each] for each in used if each in imports}
    found = _Statement(node, part, used=frozenset(used), imports=named, attributes=_attributes_by_name(plain))
    module.statements[id(node)] = found
    return found


class _Plain(ast.NodeTransformer):
    """Takes docstrings and annotations out of a syntax tree, but leaves kernels their annotations: they are compiled by them."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function without the annotation of its result."""
        if _is_kernel(node):
            return node
        node.returns = None
        return self._body(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment] # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """A class without its docstring."""
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """A parameter without its annotation."""
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """A field: its name and its default."""
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A string alone is a docstring."""
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def _body(self, node: ast.FunctionDef | ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node


class _WithoutOurImports(ast.NodeTransformer):
    """Takes imports of our own modules out of a syntax tree."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """`from stages.nerf import ...`, or from a place beside."""
        return None if node.level or _is_ours((node.module or "", None)) else node

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        """`import stages.nerf`; others of the same line stay."""
        node.names = [alias for alias in node.names if not _is_ours((alias.name, None))]
        return node if node.names else None


def _is_kernel(node: ast.FunctionDef) -> bool:
    """Whether a decorator of Warp stands above a function."""
    return any(ast.unparse(each).startswith("wp.") for each in node.decorator_list)


def _used_names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _attributes_by_name(node: ast.AST) -> dict[str, frozenset[str]]:
    """By name, the attributes that are read of it."""
    found: dict[str, set[str]] = {}
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
            found.setdefault(each.value.id, set()).add(each.attr)
    return {name: frozenset(attributes) for name, attributes in found.items()}


def _is_ours(imported: tuple[str, str | None]) -> bool:
    return imported[0].split(".")[0] in OURS


def _path(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _module(name: str, root: Path) -> _Module:
    path = _path(name, root)
    if path is None:
        raise KeyError(f"module {name} has no source file under {root}")
    return _parsed(name, path.read_bytes(), root)


@cache
def _parsed(name: str, source: bytes, root: Path) -> _Module:
    module = _Module(name)
    for node in ast.parse(source).body:
        if _is_guard(node):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.imports.update(_imports_in(node, name, root))
        elif defined := list(_defined(node)):
            for each in defined:
                module.definitions.setdefault(each, []).append(node)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            module.actions.append(node)
            module.imports.update(_imports_in(node, name, root))
    return module


def _is_guard(node: ast.stmt) -> bool:
    """Parts for the command line or the type checker alone."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "__name__ == '__main__'",
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def _imports_in(tree: ast.AST, module: str, root: Path) -> dict[str, tuple[str, str | None]]:
    """Imported names: (module, name of it, or None for the module itself)."""
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0],
                    None,
                )
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, root)
            for alias in node.names:
                found[alias.asname or alias.name] = (base, alias.name)
    return found


def _absolute(node: ast.ImportFrom, module: str, root: Path) -> str:
    if not node.level:
        return node.module or ""
    path = _path(module, root)
    package = module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]
    parts = package.split(".")[: len(package.split(".")) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)
