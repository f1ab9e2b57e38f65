"""Version of the code that a stage runs for a task: a hash over the files that can affect the stage's outputs.

These files are the import closure of the stage's module, imports inside functions included, and the templates and style
sheets that the closure names. The closure is read from the source; nothing is imported. A Python file counts by its
`canonical_source`, so a comment or a docstring changes no version; any other file counts by its bytes.

Each folder of vqbet/tasks/ is the room of a task. Only the room of the current task counts, not another task's world,
nor its row in the table of tasks. A task installed from another package counts with the files of that package. Code
named in a field of a task, as in `Task(world="...")`, counts only where the field may be read: changing a world does
not train again.

Not counted: `__main__`, `runner` and `config`, which pass values; the versions of other packages; and the modules that
compute this hash, which affect nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from importlib import metadata, util
from pathlib import Path

from vqbet.stages import task_table
from vqbet.stages.code_facts import FILE, MODULE, Facts, Kept, passed
from vqbet.stages.task_table import TABLE

PACKAGE = Path(__file__).resolve().parent.parent
GROUP = "vqbet.tasks"  # entry points of tasks that other packages provide
STAGES = ("validate", "tokenizer", "features", "prior", "bundle", "evaluate", "gate", "report")
UNCOUNTED = ("code_version", "code_facts", "canonical_source", "task_table")
QUOTED = re.compile(r"""["']([\w./-]+)["']""")  # form in which a template names another file


def digest(module: str, task: str = "") -> str:
    """Return the version of the code that `module` runs for `task`; "" means any task, so every room counts."""
    sources = Sources(kept=_kept())
    found = sources.digest(module, own_modules(task) if task else None)
    sources.save()
    return found


def write(path: Path, task: str) -> dict[str, str]:
    """Write the version of each stage's code to `path`, where the graph reads it; return the versions by stage.

    A file that already holds these versions is left alone.
    """
    sources, own = Sources(kept=_kept()), own_modules(task)
    found = {stage: sources.digest(f"vqbet.stages.{stage}", own) for stage in STAGES}
    sources.save()
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return found


def own_modules(task: str, package: Path = PACKAGE) -> tuple[str, ...]:
    """Return the modules that hold a task: from its row in the table, else from its entry point, or none."""
    rows = task_table.rows(ast.parse((package / "tasks" / "__init__.py").read_bytes()), task)
    return tuple(rows or [entry.module for entry in metadata.entry_points(group=GROUP, name=task)])


def _kept() -> Path | None:
    """Return the path of the cache of facts; None in a process without `environment.prepare`, which sets VQBET_HOME."""
    home = os.environ.get("VQBET_HOME", "")
    return Path(home) / "code-facts.json" if home else None


class Sources:
    """Source files of the project's package and of packages that provide a task, each read once."""

    def __init__(self, package: Path = PACKAGE, kept: Path | None = None) -> None:
        self._homes = {package.name: package.parent}
        self._files: dict[str, Path | None] = {}
        self._known: dict[tuple[Path, bool], Facts] = {}
        self._kept = Kept(kept)
        self.save = self._kept.save

    def digest(self, module: str, own: Sequence[str] | None = None) -> str:
        """Return the sha256 over name and content of every file of the closure. Raises as `closure`."""
        lines = (f"{name}\0{sha256}\n" for name, sha256 in sorted(self._counted(module, own).items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def closure(self, module: str, own: Sequence[str] | None = None) -> list[str]:
        """Return the paths of the files that count, relative to the folder that holds the package.

        own: modules of the current task; None counts the rooms of all tasks. Raises PipelineError for a missing module.
        """
        return sorted(self._counted(module, own))

    def _counted(self, module: str, own: Sequence[str] | None) -> dict[str, str]:
        """Return the hash of each file's counted content, by the file's path."""
        self._adopt(own or ())
        for name in (module, *(own or ())):
            self._expect(name)
        found, others = dict[str, str](), self._others(module, own)
        for name, whole in self._modules(module, self._every() if own is None else own, others).items():
            path, home = self._file(name), self._homes[_top(name)]
            if path is None:  # a folder without __init__.py
                continue
            facts = self._facts(name, whole, others)
            found[path.relative_to(home).as_posix()] = facts.sha256
            for other in _inputs([text for text, _ in facts.texts], home / _top(name), path.parent):
                found[other.relative_to(home).as_posix()] = hashlib.sha256(other.read_bytes()).hexdigest()
        return found

    def _modules(self, module: str, own: Sequence[str], others: Collection[str]) -> dict[str, bool]:
        """Return every module that runs; the value is False for a package that is only imported on the way to one."""
        found, uncounted = dict[str, bool](), {f"vqbet.stages.{name}" for name in UNCOUNTED}
        waiting, read, unread = [(module, True, "")], {""}, dict[str, list[str]]()
        while waiting:
            name, whole, field = waiting.pop()
            if field not in read:
                unread.setdefault(field, []).append(name)
                continue
            if found.get(name, False) or (name in found and not whole) or name in uncounted:
                continue
            found[name] = whole
            parts = name.split(".")
            waiting += [
                (".".join(parts[:count]), False, "") for count in range(1, len(parts))
            ]  # Python runs these first
            waiting += [
                (one, True, of) for one, of in self._named(name, whole, others) if self._room(one) not in others
            ]
            if name == TABLE and whole:
                waiting += [(one, True, "") for one in own]
            if not f"{name}.".startswith(f"{TABLE}."):  # in the table, fields are passed on, not called
                for more in set(self._facts(name, whole, others).fields) - read:
                    read.add(more)
                    waiting += [(one, True, "") for one in unread.pop(more, [])]
        return found

    def _named(self, name: str, whole: bool, others: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the modules that a module imports or names in a string constant, as for a child process.

        Each comes with the field of a task that contains the constant, or "".
        """
        facts, path = self._facts(name, whole, others), self._file(name)
        package = name if path and path.name == "__init__.py" else name.rpartition(".")[0]
        for source, inner, dots in facts.imports:
            source = _absolute(source, dots, package)
            parts = source.split(".")
            if not inner:  # `import a.b.c` makes all three reachable
                named = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
            else:
                named = [f"{source}.{inner}" if self._file(f"{source}.{inner}") else source]
            yield from ((one, "") for one in named if self._file(one))
        for text, field in facts.texts if name != _top(name) else ():  # the library's surface imports on demand
            match = MODULE.fullmatch(text)
            path = self._file(match[1]) if match else None
            if match and path and path.name != "__init__.py":
                yield match[1], field

    def _facts(self, name: str, whole: bool, others: Collection[str]) -> Facts:
        path = self._file(name)
        if path is None:
            return Facts("", (), (), ())
        try:
            if name == TABLE:
                tree = task_table.without_others(ast.parse(path.read_bytes()), others)
                return Facts.of(tree if whole else passed(tree))
            if (path, whole) not in self._known:
                self._known[path, whole] = self._kept.of(path.read_bytes(), whole=whole)
            return self._known[path, whole]
        except SyntaxError as error:
            from vqbet.contract import PipelineError

            raise PipelineError(f"{path}: line {error.lineno}: is not Python: {error.msg}") from error

    def _file(self, module: str) -> Path | None:
        if module not in self._files:
            self._files[module] = self._looked_for(module)
        return self._files[module]

    def _looked_for(self, module: str) -> Path | None:
        home = self._homes.get(_top(module))
        if home is None:
            return None
        path = home.joinpath(*module.split("."))
        files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
        return next((file for file in files if file.is_file()), None)

    def _others(self, module: str, own: Sequence[str] | None) -> frozenset[str]:
        """Return the rooms of other tasks; empty where `own` is None, which stands for any task."""
        if own is None:
            return frozenset()
        folders = self._homes[_top(TABLE)].joinpath(*TABLE.split(".")).glob("*/__init__.py")
        return frozenset(f"{TABLE}.{file.parent.name}" for file in folders) - set(map(self._room, (module, *own)))

    def _every(self) -> list[str]:
        """Return the modules of all rows of the table that are there."""
        table = self._file(TABLE)
        return [name for name in task_table.rows(ast.parse(table.read_bytes())) if self._file(name)] if table else []

    @staticmethod
    def _room(module: str) -> str:
        """Return the room of vqbet/tasks that a module lies in; "" for a module outside of the rooms."""
        return ".".join(module.split(".")[:3]) if module.startswith(f"{TABLE}.") else ""

    def _adopt(self, own: Sequence[str]) -> None:
        """Locate the packages that provide the task, without importing them."""
        for top in set(map(_top, own)) - set(self._homes):
            spec = util.find_spec(top)
            if spec is not None and spec.origin is not None:
                origin = Path(spec.origin)
                self._homes[top] = origin.parent.parent if spec.submodule_search_locations else origin.parent
                self._files.clear()

    def _expect(self, module: str) -> None:
        if self._file(module) is None:
            from vqbet.contract import PipelineError  # imported late: numpy takes longer than the rest of this module

            raise PipelineError(f"{module}: no module of this project, nor of the package that brings the task")


def _inputs(texts: Sequence[str], package: Path, folder: Path) -> Iterator[Path]:
    """Yield the files that `texts` name, relative to `package` or `folder`, and the files that those files name."""
    waiting, found = list(texts), set[Path]()
    while waiting:
        text = waiting.pop()
        for other in {package / text, folder / text} if FILE.fullmatch(text) else ():
            if other.suffix != ".py" and other not in found and other.is_file():
                found.add(other)
                yield other
                waiting += QUOTED.findall(other.read_text(encoding="utf-8", errors="replace"))


def _absolute(source: str, dots: int, package: str) -> str:
    """Return the absolute name of the module in `from ... import`."""
    if not dots:
        return source
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - dots + 1], *([source] if source else [])])


def _top(module: str) -> str:
    return module.partition(".")[0]
