"""Which of our files a module needs to run: its import closure, read from the source without importing anything."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

from vqbet.contract import PipelineError

PACKAGE = Path(__file__).resolve().parent.parent


def closure(module: str) -> list[Path]:
    """The project's files that `module` imports, itself included, at any depth and inside functions too.

    Imports under `if TYPE_CHECKING:` do not count: they do not exist when the program runs.
    """
    if _file(module) is None:
        raise PipelineError(f"{module}: no module of this project")
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _file(waiting.pop())
        if path is None or path in found:
            continue
        found.add(path)
        waiting.extend(_imports(ast.parse(path.read_text(encoding="utf-8"))))
        waiting.extend(_parents(path))
    return sorted(found)


def digest(module: str) -> str:
    """sha256 over the names and bytes of the closure: the version of the code that a stage runs."""
    total = hashlib.sha256()
    for path in closure(module):
        total.update(f"{path.relative_to(PACKAGE.parent).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _file(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    if module.split(".")[0] != PACKAGE.name:
        return None
    if path.is_dir():
        return path / "__init__.py"
    source = path.with_suffix(".py")
    return source if source.is_file() else None


def _parents(path: Path) -> Iterator[str]:
    """The packages that Python runs before it runs this file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for count in range(1, len(parts)):
        yield ".".join(parts[:count])


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _imports(node)
