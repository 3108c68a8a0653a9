"""What makes two computations the same: settings, ancestry, weights and the code behind a stage.

No path, time, environment or hash seed enters, so fingerprints are equal over processes and moved checkouts.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

PROJECT = Path(__file__).resolve().parents[2]

OURS = ("dreampolish", "stages", "schemas", "flows")

PLUMBING = (
    *(f"schemas.config.run{part}" for part in ("", "_guidance", "_parts", "_stages")),
    *(f"schemas.{name}" for name in ("artifacts", "runs", "presets", "frozen")),
    *(
        f"stages.{name}"
        for name in ("context", "disk", "entry", "errors", "probing", "progress", "run_record", "stopping", "store")
    ),
    "stages.runtime.costed_checkpoints",
    "stages.runtime.key",
    "stages.runtime.journal_files",
    "stages.runtime.tracking",
)
"""Modules that move, lock or report bytes but choose none of them. Settings count by value, so their schemas need not.

Their own sources do not count; what they import does (the seeds of stages.runtime.context, for one).
"""


def fingerprint(
    stage: str,
    config: BaseModel,
    parents: Mapping[str, str],
    priors: Sequence[str],
    inputs: Mapping[str, Any],
    code: str,
) -> str:
    """SHA-256 over everything a stage's result depends on.

    parents: fingerprints by stage name. priors: digests of the weights used, in any order. inputs: JSON values that are no
    setting (seed, device kind, the prompt, a picture's hash). code: `code_digest` of the stage's module.
    """
    content = {
        "stage": stage,
        "config": config.model_dump(mode="json"),
        "parents": dict(parents),
        "priors": sorted(priors),
        "inputs": dict(inputs),
        "code": code,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def code_digest(module: str, root: Path) -> str:
    """SHA-256 over the names and sources of a module and of every module of ours that it imports, transitively.

    root: the folder that holds the packages. An import under `if __name__ == "__main__"` does not count: it serves the
    command line. A FileNotFoundError names a module without a source file.
    """
    digest = hashlib.sha256()
    for name in sorted(imported_modules(module, root)):
        digest.update(f"{name}\0{hashlib.sha256(_source(name, root)).hexdigest()}\n".encode())
    return digest.hexdigest()


def imported_modules(module: str, root: Path) -> set[str]:
    """The module and all modules of ours behind it, packages' `__init__` included, plumbing looked through and left out."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_direct_imports(name, root))
    return {name for name in seen if not _is_plumbing(name)}


def _is_plumbing(name: str) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in PLUMBING)


def _path(name: str, root: Path) -> Path | None:
    base = root.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _source(name: str, root: Path) -> bytes:
    path = _path(name, root)
    if path is None:
        raise FileNotFoundError(f"module {name} has no source file under {root}")
    return path.read_bytes().replace(b"\r\n", b"\n")


def _direct_imports(name: str, root: Path) -> frozenset[str]:
    return _names_in_source(name, _source(name, root), root)


@cache
def _names_in_source(name: str, source: bytes, root: Path) -> frozenset[str]:
    found: set[str] = set()
    path = _path(name, root)
    package = name if path is not None and path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(_from_names(node, package))
    ours = {entry for entry in found if entry.split(".")[0] in OURS}
    parts = {prefix for entry in ours | {name} for prefix in _prefixes(entry)}
    return frozenset(entry for entry in parts if _path(entry, root) is not None)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    for node in tree.body:
        if not _is_main_guard(node):
            yield from ast.walk(node)


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "'__main__' == __name__")


def _from_names(node: ast.ImportFrom, package: str) -> Iterator[str]:
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - (node.level - 1)]
        base = ".".join([*parents, base] if base else parents)
    yield base
    for alias in node.names:
        yield f"{base}.{alias.name}"


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])
