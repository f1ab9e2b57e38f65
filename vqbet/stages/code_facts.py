"""Facts of one Python file for the version of the code: the hash of its canonical source, and the names it uses.

Facts depend on the file's bytes alone, so they are cached in a file: parsing a hundred sources takes longer than the
rest of a run of the graph in which nothing changed.
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
from typing import Any

from vqbet.stages import canonical_source

MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?::\w+)?")  # in the form of `python -m` and of entry points
FIELDS = frozenset({"importer", "oracle", "replay", "world", "goal_world", "validation"})  # of a task, naming code
FILE = re.compile(r"[\w./-]{1,200}\.\w{1,8}")
MOST = 2000  # files whose facts are kept; beyond that, facts that were not used are dropped
VERSION = hashlib.sha256(Path(__file__).read_bytes() + Path(canonical_source.__file__).read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of one file that determine the version of the code.

    imports: module, name in the module or "", dots before the module. texts: a constant that may name a file or a
    module, and the field of a task whose value the constant is, or "". fields: members of FIELDS that the file may read
    from a task.
    """

    sha256: str  # of the canonical source
    imports: tuple[tuple[str, str, int], ...]
    texts: tuple[tuple[str, str], ...]
    fields: tuple[str, ...]

    @classmethod
    def of(cls, tree: ast.Module) -> Facts:
        imports, texts, fields, words = set[tuple[str, str, int]](), set[tuple[str, str]](), set[str](), set[str]()
        for node, field in _running(tree):
            if isinstance(node, ast.Import):
                imports |= {(alias.name, "", 0) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imports |= {(node.module or "", alias.name, node.level) for alias in node.names}
            elif isinstance(node, ast.Attribute):
                fields |= {node.attr} & FIELDS
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                words |= {node.value} & FIELDS
                texts |= {(node.value, field)} if MODULE.fullmatch(node.value) or FILE.fullmatch(node.value) else set()
        if any(f"{module}.{name}.".startswith("vqbet.tasks.") for module, name, _ in imports):
            fields |= words  # a field may be read by `getattr`
        sha256 = hashlib.sha256(canonical_source.text(tree).encode()).hexdigest()
        return cls(sha256, tuple(sorted(imports)), tuple(sorted(texts)), tuple(sorted(fields)))


class Kept:
    """Cache of facts by a file's bytes, stored in `path` between processes. A damaged `path` counts as empty."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._facts, self._used = path, dict[str, Facts](), set[str]()
        self._new = False
        if path is not None:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
                found = json.loads(path.read_bytes())
                known = {key: _facts(one) for key, one in found["facts"].items()}
                self._facts = known if found["version"] == VERSION else {}

    def of(self, content: bytes, *, whole: bool) -> Facts:
        """Return the facts of a file. whole: False takes only the part that runs on import, see `passed`."""
        key = f"{hashlib.sha256(content).hexdigest()} {'whole' if whole else 'passed'}"
        self._used.add(key)
        if key not in self._facts:
            tree = ast.parse(content)
            self._facts[key], self._new = Facts.of(tree if whole else passed(tree)), True
        return self._facts[key]

    def save(self) -> None:
        """Write the cache. Does nothing where the folder is missing or not writable."""
        if self._path is None or not self._new:
            return
        kept = self._facts if len(self._facts) <= MOST else {key: self._facts[key] for key in self._used}
        found = {key: asdict(facts) for key, facts in kept.items()}
        with suppress(OSError):
            staging = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            staging.write_text(json.dumps({"version": VERSION, "facts": found}), encoding="utf-8")
            staging.replace(self._path)


def passed(tree: ast.Module) -> ast.Module:
    """Return the part of a package that runs when one of its modules is imported.

    Functions are left out, unless the package's own top-level code mentions one of them.
    """
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    rest = [node for node in tree.body if node not in functions]
    mentioned = {node.id for part in rest for node in ast.walk(part) if isinstance(node, ast.Name)}
    return tree if mentioned & {one.name for one in functions} else ast.Module(rest, [])


def _running(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield every node that is not for types only, in no order, with the field of a task that contains the node."""
    waiting = [(tree, "")]
    while waiting:
        node, field = waiting.pop()
        if isinstance(node, ast.If) and canonical_source.for_types_only(node):
            waiting += [(part, field) for part in node.orelse]
            continue
        yield node, field
        waiting += [(part, field or _field(part, node)) for part in ast.iter_child_nodes(node)]


def _field(node: ast.AST, parent: ast.AST) -> str:
    """Return the field of a task whose value a node sets: in `Task(world=...)`, or as a default in the class."""
    name = ""
    if isinstance(node, ast.keyword) and isinstance(parent, ast.Call):
        made = parent.func
        called = made.id if isinstance(made, ast.Name) else made.attr if isinstance(made, ast.Attribute) else ""
        name = (node.arg or "") if called == "Task" else ""
    elif isinstance(node, ast.AnnAssign) and isinstance(parent, ast.ClassDef) and parent.name == "Task":
        name = node.target.id if isinstance(node.target, ast.Name) else ""
    return name if name in FIELDS else ""


def _facts(value: dict[str, Any]) -> Facts:
    texts = tuple((text, field) for text, field in value["texts"])
    return Facts(
        value["sha256"],
        tuple((module, name, dots) for module, name, dots in value["imports"]),
        texts,
        tuple(value["fields"]),
    )
