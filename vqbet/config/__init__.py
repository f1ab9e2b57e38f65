"""params.yaml as frozen, strict types. The only reader of that file; holds types and bounds, never a value.

Read with ruamel as DVC reads it (YAML 1.2), so that `1e-4` is a number and `no` is a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vqbet.config.paper import PaperParams
from vqbet.config.section import Section
from vqbet.config.task import BundleParams, DriftParams, PriorParams, TaskParams, TokenizerParams
from vqbet.contract import ConfigError

__all__ = ["BundleParams", "DriftParams", "PaperParams", "Params", "PriorParams", "TaskParams", "TokenizerParams"]
PAPER = "paper"
RESERVED = ("tasks", PAPER)
S = TypeVar("S", bound=Section)


def read(path: Path) -> Mapping[str, Any]:
    """The file as plain mappings, lists and scalars. Raises ConfigError where it is not YAML."""
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of tasks, got {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class Params:
    """All of params.yaml that the comparison needs: its own section, and the tasks' by name."""

    path: Path
    content: Mapping[str, Any]
    paper: PaperParams

    def task(self, name: str) -> TaskParams:
        """Raises as `config.task`."""
        return _task(self.path, self.content, name)

    def sized(self, size: str) -> Self:
        """The same at another of the comparison's sizes."""
        return replace(self, paper=self.paper.model_copy(update={"size": size}))


def comparison(path: Path, *, size: str = "") -> Params:
    """The section `paper`; `size` takes the place of its size. Raises ConfigError naming every key that is wrong."""
    value = read(path)
    if not isinstance(value.get(PAPER), dict):
        raise ConfigError(f"{path}: no section {PAPER!r}; it says what is compared with what")
    section = {**value[PAPER], **({"size": size} if size else {})}
    return Params(path, value, _validated(path, PAPER, PaperParams, section))


def changed(section: S, changes: Mapping[str, Any], where: str) -> S:
    """The section with some values replaced, checked as params.yaml is. Raises ConfigError naming where and the key."""
    if unknown := sorted(set(changes) - set(type(section).model_fields)):
        raise ConfigError(f"{where}: {unknown[0]}: unknown key (misspelled?)")
    return _validated(None, where, type(section), {**section.model_dump(by_alias=True), **changes})


def tasks(path: Path) -> list[str]:
    """The names of the tasks that the graph builds. Raises ConfigError where one has no section or a bad name."""
    value = read(path)
    names = value.get("tasks")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: tasks: expected a list of names, got {names!r}")
    for name in names:
        if name not in value:
            raise ConfigError(f"{path}: tasks: {name!r} has no section of its own; sections: {_sections(value)}")
    return names


def task(path: Path, name: str) -> TaskParams:
    """The section of one task. Raises ConfigError naming the path of every key that is wrong."""
    return _task(path, read(path), name)


def _task(path: Path, value: Mapping[str, Any], name: str) -> TaskParams:
    if name in RESERVED or name not in value:
        raise ConfigError(f"{path}: no section {name!r}; sections: {_sections(value)}")
    return _validated(path, name, TaskParams, value[name])


def _validated(path: Path | None, name: str, kind: type[S], value: Any) -> S:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        lines = [_sentence(name, problem) for problem in error.errors()]
        raise ConfigError((f"{path}: " if path else "") + "; ".join(lines)) from error


def _sections(value: Mapping[str, Any]) -> str:
    return ", ".join(str(key) for key in value if key not in RESERVED) or "none"


def _sentence(name: str, problem: Any) -> str:
    where = ".".join([name, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key (misspelled?)"
    if problem["type"] == "missing":
        return f"{where}: missing"
    if problem["type"] == "value_error":  # a rule over several keys, which says itself what came
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {problem['msg']}, got {problem['input']!r}"
