"""Which of our files a module needs to run: its import closure, read from the source without importing anything."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from importlib import util
from pathlib import Path

from vqbet.contract import PipelineError

PACKAGE = Path(__file__).resolve().parent.parent


def closure(module: str) -> list[Path]:
    """The project's files that `module` imports, itself included, at any depth and inside functions too.

    Imports under `if TYPE_CHECKING:` do not count: they do not exist when the program runs. Files of the package that
    `module` lies in count too, where it is another one, as a task's may be.
    """
    return sorted(_closure(module, _homes(module)))


def digest(module: str) -> str:
    """sha256 over the names and bytes of the closure: the version of the code that a stage runs."""
    total = hashlib.sha256()
    for path, name in sorted(_closure(module, _homes(module)).items()):
        total.update(f"{name}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _homes(module: str) -> dict[str, Path]:
    """The folders in which this package lies, and the one of `module`."""
    homes, top = {PACKAGE.name: PACKAGE.parent}, module.partition(".")[0]
    spec = None if top in homes else util.find_spec(top)
    if spec is not None and spec.origin is not None:
        homes[top] = Path(spec.origin).parent.parent if spec.submodule_search_locations else Path(spec.origin).parent
    return homes


def _closure(module: str, homes: Mapping[str, Path]) -> dict[Path, str]:
    """Every file and its name, from the folder in which its package lies."""
    if _file(module, homes) is None:
        raise PipelineError(f"{module}: no module of this project, nor of the package that brings the task")
    found: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name, homes)
        if path is None or path in found:
            continue
        inside = path.relative_to(homes[name.partition(".")[0]])
        found[path] = inside.as_posix()
        waiting.extend(_imports(ast.parse(path.read_text(encoding="utf-8"))))
        waiting.extend(".".join(inside.with_suffix("").parts[:count]) for count in range(1, len(inside.parts)))
    return found


def _file(module: str, homes: Mapping[str, Path]) -> Path | None:
    home = homes.get(module.partition(".")[0])
    if home is None:
        return None
    path = home.joinpath(*module.split("."))
    if path.is_dir():
        return path / "__init__.py"
    source = path.with_suffix(".py")
    return source if source.is_file() else None


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
