"""Syntax tree of the table of tasks, vqbet/tasks/__init__.py, without the rows of other tasks.

A new task is one folder and one row; neither may change the version of the code that builds the existing tasks.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Collection, Iterator

TABLE = "vqbet.tasks"
ROW = re.compile(r"[\w.]+:\w+")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def without_others(table: ast.Module, others: Collection[str]) -> ast.Module:
    """Return the table without imports, functions and rows that refer to one of the rooms `others`.

    A row is an element of a tuple, list, set or mapping. others: folders of vqbet/tasks, as module names.
    """
    pruning = _Pruning(others)
    return ast.Module([part for statement in table.body for part in pruning.kept(copy.deepcopy(statement))], [])


def rows(table: ast.Module, task: str) -> list[str]:
    """Return the modules that the table's mappings hold for a task, as in `{"door": "vqbet.tasks.door:TASK"}`."""
    return sorted(
        {
            value.value.partition(":")[0]
            for node in ast.walk(table)
            if isinstance(node, ast.Dict)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and key.value == task
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and ROW.fullmatch(value.value)
        }
    )


class _Pruning(ast.NodeTransformer):
    """Transformer that removes rows from displays. names: variables that the table binds to objects of other rooms."""

    def __init__(self, others: Collection[str]) -> None:
        self.others, self.names = others, set[str]()

    def kept(self, statement: ast.stmt) -> Iterator[ast.stmt]:
        """Yield the counted part of a statement, if any. To be called in file order, so that `names` is complete."""
        if isinstance(statement, ast.Import | ast.ImportFrom):
            foreign = [alias for alias in statement.names if self._is_other(_target(statement, alias))]
            self.names |= {alias.asname or alias.name for alias in foreign}
            statement.names = [alias for alias in statement.names if alias not in foreign]
            if statement.names:
                yield statement
            return
        if not isinstance(statement, FUNCTIONS):
            statement = self.visit(statement)
        if not self._leads_away(statement):
            yield statement
        elif isinstance(statement, FUNCTIONS):
            self.names.add(statement.name)
        else:
            self.names |= {
                node.id
                for node in ast.walk(statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }

    def visit_Dict(self, node: ast.Dict) -> ast.AST:
        rows = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if not self._leads_away(value)]
        node.keys, node.values = [key for key, _ in rows], [value for _, value in rows]
        return self.generic_visit(node)

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        node.elts = [part for part in node.elts if not self._leads_away(part)]
        return self.generic_visit(node)

    def visit_List(self, node: ast.List) -> ast.AST:
        node.elts = [part for part in node.elts if not self._leads_away(part)]
        return self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> ast.AST:
        node.elts = [part for part in node.elts if not self._leads_away(part)]
        return self.generic_visit(node)

    def _leads_away(self, node: ast.AST) -> bool:
        """Return whether a node mentions another room: by a name, an import or a string."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in self.names:
                return True
            if isinstance(part, ast.Import | ast.ImportFrom):
                if any(self._is_other(_target(part, alias)) for alias in part.names):
                    return True
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and self._is_other(part.value):
                return True
        return False

    def _is_other(self, module: str) -> bool:
        return any(module == room or module.startswith((f"{room}.", f"{room}:")) for room in self.others)


def _target(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    return alias.name if isinstance(node, ast.Import) else f"{node.module or ''}.{alias.name}"
