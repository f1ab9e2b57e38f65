"""Canonical text of a Python file, equal for files whose syntax trees differ only in parts that have no effect.

Left out: comments, layout, docstrings and other statements that are only a constant, `pass`, imports under
`if TYPE_CHECKING:`. Counted: everything else, names and annotations included.

Python 3.11 to 3.13 produce equal texts. Empty fields of a node are left out, which includes every field that a later
version added; adjacent parts of an f-string, which each version splits differently, are joined.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

IGNORED = ("ctx", "kind", "type_comment", "type_ignores")  # follow from the rest, or are comments


def text(tree: ast.Module) -> str:
    """Return the canonical text of a file's syntax tree."""
    return _form(tree)


def for_types_only(statement: ast.stmt) -> bool:
    """Return whether the statement is an `if TYPE_CHECKING:`, whose body never runs."""
    if not isinstance(statement, ast.If):
        return False
    test = statement.test
    name = test.attr if isinstance(test, ast.Attribute) else test.id if isinstance(test, ast.Name) else ""
    return name == "TYPE_CHECKING"


def _form(value: object) -> str:
    if isinstance(value, ast.Constant):
        return f"{type(value.value).__name__} {_constant(value.value)}"
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr[{','.join(map(_form, _joined(value.values)))}]"
    if isinstance(value, ast.AST):
        fields = ((name, part) for name, part in ast.iter_fields(value) if name not in IGNORED)
        formed = ((name, _form(part)) for name, part in fields if part is not None)
        return f"{type(value).__name__}({','.join(f'{name}={form}' for name, form in formed if form != '[]')})"
    if isinstance(value, list):
        parts = _effective(value) if value and isinstance(value[0], ast.stmt) else value
        return f"[{','.join(map(_form, parts))}]"
    return _constant(value)


def _effective(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that have an effect."""
    for statement in statements:
        if isinstance(statement, ast.If) and for_types_only(statement):
            yield from _effective(statement.orelse)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue
        elif not isinstance(statement, ast.Pass):
            yield statement


def _joined(parts: Iterable[ast.expr]) -> list[ast.expr]:
    """Return the parts of an f-string with adjacent texts joined and empty ones removed."""
    found, text = list[ast.expr](), ""
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            text += part.value
            continue
        found += [ast.Constant(text), part] if text else [part]
        text = ""
    return found + ([ast.Constant(text)] if text else [])


def _constant(value: object) -> str:
    """Return a constant in ASCII, since the characters that `repr` escapes depend on the version of Python."""
    return hex(value) if type(value) is int else ascii(value)
