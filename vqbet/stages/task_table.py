"""Syntax tree of the table of tasks, vqbet/tasks/__init__.py, without the rows of other tasks.

A new task is one folder and one row, `"door": "vqbet.tasks.door:TASK"`; neither may change the version of the code that
builds the existing tasks.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Collection, Iterator

TABLE = "vqbet.tasks"
ROW = re.compile(r"([\w.]+):\w+")


def without_others(table: ast.Module, others: Collection[str]) -> ast.Module:
    """Return the table without the rows that lead to a room of `others`, folders of vqbet/tasks as module names."""
    pruned = copy.deepcopy(table)
    for mapping in _mappings(pruned):
        rows = list(zip(mapping.keys, mapping.values, strict=True))
        rows = [(key, value) for key, value in rows if not _leads_to(value, others)]
        mapping.keys, mapping.values = [key for key, _ in rows], [value for _, value in rows]
    return pruned


def rows(table: ast.Module, task: str = "") -> list[str]:
    """Return the modules that the table's mappings hold for a task, or for all tasks."""
    return sorted(
        {
            module
            for mapping in _mappings(table)
            for key, value in zip(mapping.keys, mapping.values, strict=True)
            if isinstance(key, ast.Constant) and key.value == (task or key.value) and (module := _module(value))
        }
    )


def _mappings(table: ast.Module) -> Iterator[ast.Dict]:
    return (node for node in ast.walk(table) if isinstance(node, ast.Dict))


def _module(value: ast.expr) -> str:
    """Return the module of a row's value; "" where it is no row."""
    row = ROW.fullmatch(value.value) if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
    return row[1] if row else ""


def _leads_to(value: ast.expr, rooms: Collection[str]) -> bool:
    module = _module(value)
    return any(module == room or module.startswith(f"{room}.") for room in rooms)
