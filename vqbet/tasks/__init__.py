"""Tasks, one folder each: spec, world, importer or oracle, goal, symmetries, picture. TASKS is the only table.

A row names a `Task` value as `module:name`; the module is imported when the task is looked up. An installed package
adds tasks by entry points of the group `vqbet.tasks`, in the same format:

    [project.entry-points."vqbet.tasks"]
    door = "our_package.door:TASK"

The code that a stage runs for one task lies in three places, none of which reaches another task:

- the import closure of the stage, which includes only `tasks/__init__.py` and `tasks/task.py` of this package, since
  rows and `Code` are names and not imports;
- the import closure of the row's module, `TASKS.module(task)`: the task's knowledge, which every stage may read;
- the import closures of the modules in `Task.modules` whose functions the stage calls: "validation" in the stage
  validate, "world" and "goal_world" where worlds are made (`stages/worlds.py`), "importer" and "oracle" in ingest.

So editing a task's world trains nothing again, and editing another task's world re-runs nothing. A row's module must
therefore name its world by `Code` and not import it. The modules of an installed task may all lie outside this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import final

from vqbet.contract import ConfigError, Spec
from vqbet.tasks.task import Code, Importer, Oracle, Score, Task, module

__all__ = ["GROUP", "TASKS", "Code", "Importer", "Oracle", "Score", "Task", "Tasks", "module", "of"]

GROUP = "vqbet.tasks"


@final
class Tasks(Mapping[str, Task]):
    """Mapping from names to tasks: those of `rows`, then installed ones. Only a task that is looked up is imported."""

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._rows = rows

    def __getitem__(self, name: str) -> Task:
        """Return the task `name`. Raises KeyError where there is none, ConfigError where its row is wrong."""
        row = self._row(name)
        whose = f"task {name!r} of the package {row.dist.name!r}" if row.dist else f"task {name!r}"
        try:
            task = row.load()
        except Exception as error:  # from code of other packages
            raise ConfigError(
                f"{whose}: {row.value!r} cannot be loaded: {type(error).__name__}: {error}; repair or remove it"
            ) from error
        if not isinstance(task, Task) or task.name != name:
            found = f"the task {task.name!r}" if isinstance(task, Task) else f"a {type(task).__name__}"
            raise ConfigError(f"{whose}: expected {row.value!r} to be the Task whose spec says {name!r}, got {found}")
        return task

    def __contains__(self, name: object) -> bool:
        return name in self._rows or bool(entry_points(group=GROUP, name=str(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._rows, *(each.name for each in entry_points(group=GROUP))]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def module(self, name: str) -> str:
        """Return the module that holds the task's value, without importing it. Raises KeyError."""
        return self._row(name).module

    def _row(self, name: str) -> EntryPoint:
        if name in self._rows:
            return EntryPoint(name, self._rows[name], GROUP)
        found = list({each.value: each for each in entry_points(group=GROUP, name=name)}.values())
        if len(found) > 1:
            whose = ", ".join(f"{each.value} of {each.dist.name if each.dist else '?'}" for each in found)
            raise ConfigError(f"task {name!r}: several packages bring one in: {whose}; remove all but one")
        if not found:
            raise KeyError(name)
        return found[0]


TASKS = Tasks(
    {
        "blockpush": "vqbet.tasks.blockpush:FIXED",
        "blockpush_drawn": "vqbet.tasks.blockpush:DRAWN",
        "kitchen": "vqbet.tasks.kitchen:TASK",
        "kitchen_image": "vqbet.tasks.kitchen:IMAGE",
        "pusht": "vqbet.tasks.pusht:TASK",
        "pusht_image": "vqbet.tasks.pusht:IMAGE",
    }
)


def of(spec: Spec) -> Task:
    """Return the task that `spec` names, or a task that has nothing but this spec."""
    return TASKS[spec.task] if spec.task in TASKS else Task(spec=spec)
