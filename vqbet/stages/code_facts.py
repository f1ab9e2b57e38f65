"""What one Python file adds to the version of the code: the hash of its canonical source, and what it names.

Facts follow from the file's bytes alone, so a folder can keep them: to parse a hundred files takes longer than the rest
of a run of the graph in which nothing changed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vqbet.stages import canonical_source

MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?::\w+)?")  # as `python -m` and entry points name one
FILE = re.compile(r"[\w./-]{1,200}\.\w{1,8}")
MOST = 2000  # files whose facts are kept; beyond, those that were not asked for are dropped
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
        self._path, self._facts, self._used = path, dict[str, Facts](), set[str]()
        self._new = False
        if path is not None:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                found = json.loads(path.read_bytes())
                known = {key: _facts(one) for key, one in found["facts"].items()}
                self._facts = known if found["version"] == VERSION else {}

    def of(self, content: bytes, *, whole: bool) -> Facts:
        """Return the facts of a file; of what a package runs when it is passed through, where it does not run whole."""
        key = f"{hashlib.sha256(content).hexdigest()} {'whole' if whole else 'passed'}"
        self._used.add(key)
        if key not in self._facts:
            tree = ast.parse(content)
            self._facts[key], self._new = Facts.of(tree if whole else passed(tree)), True
        return self._facts[key]

    def save(self) -> None:
        """Write what was learned. Where the folder is missing or closed, nothing is kept."""
        if self._path is None or not self._new:
            return
        kept = self._facts if len(self._facts) <= MOST else {key: self._facts[key] for key in self._used}
        found = {key: asdict(facts) for key, facts in kept.items()}
        with suppress(OSError):
            staging = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            staging.write_text(json.dumps({"version": VERSION, "facts": found}), encoding="utf-8")
            staging.replace(self._path)


def passed(tree: ast.Module) -> ast.Module:
    """Return what a package runs when one of its modules is imported: no function, unless it mentions one itself."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    rest = [node for node in tree.body if node not in functions]
    mentioned = {node.id for part in rest for node in ast.walk(part) if isinstance(node, ast.Name)}
    return tree if mentioned & {one.name for one in functions} else ast.Module(rest, [])


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of the tree but those that are there for types only, in no order."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and canonical_source.for_types_only(node):
            waiting += node.orelse
        else:
            yield node
            waiting += ast.iter_child_nodes(node)


def _facts(value: dict[str, object]) -> Facts:
    imports = value["imports"]
    return Facts(value["sha256"], tuple(map(tuple, imports)), tuple(value["texts"]))
