"""What one Python file adds to the version of the code: the hash of its canonical source, and what it names.

Facts follow from the file's bytes alone, so a folder can keep them: to parse a hundred files takes longer than the rest
of a run of the graph in which nothing changed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vqbet.stages import canonical_source

MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?::\w+)?")  # as `python -m` and entry points name one
FILE = re.compile(r"[\w./-]{1,200}\.\w{1,8}")
VERSION = hashlib.sha256(Path(__file__).read_bytes() + Path(canonical_source.__file__).read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Facts:
    """imports: (module, name in it or "", dots before the module). texts: constants that may name a file or a module."""

    sha256: str  # of the canonical source
    imports: tuple[tuple[str, str, int], ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, tree: ast.Module) -> Facts:
        imports, texts = set[tuple[str, str, int]](), set[str]()
        for node in _running(tree):
            if isinstance(node, ast.Import):
                imports |= {(alias.name, "", 0) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imports |= {(node.module or "", alias.name, node.level) for alias in node.names}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if MODULE.fullmatch(node.value) or FILE.fullmatch(node.value):
                    texts.add(node.value)
        content = canonical_source.text(tree).encode()
        return cls(hashlib.sha256(content).hexdigest(), tuple(sorted(imports)), tuple(sorted(texts)))


class Kept:
    """Facts by the bytes of a file, kept in `path` from one process to the next; a file there that is damaged is none."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._facts, self._new = path, dict[str, tuple[Facts, Facts]](), False
        if path is not None:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                found = json.loads(path.read_bytes())
                known = {key: (_facts(one), _facts(two)) for key, (one, two) in found["facts"].items()}
                self._facts = known if found["version"] == VERSION else {}

    def of(self, content: bytes) -> tuple[Facts, Facts]:
        """Return the facts of a file that runs whole, and of a package that is only passed through."""
        key = hashlib.sha256(content).hexdigest()
        if key not in self._facts:
            tree = ast.parse(content)
            self._facts[key] = Facts.of(tree), Facts.of(passed(tree))
            self._new = True
        return self._facts[key]

    def save(self) -> None:
        """Write what was learned. Where the folder is missing or closed, nothing is kept."""
        if self._path is None or not self._new:
            return
        found = {key: [asdict(one) for one in both] for key, both in self._facts.items()}
        with suppress(OSError):
            staging = self._path.with_name(f".{self._path.name}.staging")
            staging.write_text(json.dumps({"version": VERSION, "facts": found}), encoding="utf-8")
            staging.replace(self._path)


def passed(tree: ast.Module) -> ast.Module:
    """Return what a package runs when one of its modules is imported: no function, unless it mentions one itself."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    rest = [node for node in tree.body if node not in functions]
    mentioned = {node.id for part in rest for node in ast.walk(part) if isinstance(node, ast.Name)}
    return tree if mentioned & {one.name for one in functions} else ast.Module(rest, [])


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of the tree but those that are there for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and canonical_source.for_types_only(node):
            yield from (part for other in node.orelse for part in (other, *_running(other)))
        else:
            yield node
            yield from _running(node)


def _facts(value: dict[str, object]) -> Facts:
    imports = value["imports"]
    return Facts(value["sha256"], tuple(map(tuple, imports)), tuple(value["texts"]))
