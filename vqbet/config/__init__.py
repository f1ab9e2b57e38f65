"""params.yaml as frozen, strict types. The only reader of params.yaml; defines types and bounds, no values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from vqbet.config.document import read
from vqbet.config.encoder import EncoderParams, WeightsParams
from vqbet.config.promotion import CanaryParams, TrialsParams
from vqbet.config.section import Name, Section
from vqbet.config.source import SourceParams
from vqbet.config.task import (
    BundleParams,
    DemosParams,
    DriftParams,
    PriorParams,
    TaskParams,
    TokenizerParams,
)
from vqbet.contract import ConfigError
from vqbet.files import reading

__all__ = [
    "BundleParams",
    "CanaryParams",
    "DemosParams",
    "DriftParams",
    "EncoderParams",
    "PriorParams",
    "SourceParams",
    "TaskParams",
    "TokenizerParams",
    "TrialsParams",
    "WeightsParams",
]
RESERVED = ("tasks", "defaults")  # sections that are not tasks
SHOWN = 10  # most errors reported for one section
S = TypeVar("S", bound=Section)


def changed(section: S, changes: Mapping[str, Any], where: str) -> S:
    """Return the section with `changes`, validated like params.yaml. Raises ConfigError naming `where` and the key."""
    if unknown := sorted(set(changes) - set(type(section).model_fields)):
        raise ConfigError(f"{where}: {unknown[0]}: unknown key (misspelled?)")
    return validated(None, where, type(section), {**section.model_dump(by_alias=True), **changes})


def tasks(path: Path) -> list[str]:
    """Return the names of the tasks that the graph builds. Raises ConfigError for a missing section or a bad name."""
    value = read(path)
    names = value.get("tasks")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: tasks: expected a list of names, got {reading.short(names)}")
    for name in names:
        _refuse_unfit(f"{path}: tasks", name)
        if name in RESERVED or name not in value:
            raise ConfigError(f"{path}: tasks: {name!r} has no section of its own; sections: {_sections(value)}")
    if len(set(names)) != len(names):
        raise ConfigError(f"{path}: tasks: expected each name once, got {reading.short(names)}")
    return names


def sections(path: Path) -> list[str]:
    """Return the names of all tasks that have a section, built by the graph or not. Raises ConfigError like `read`."""
    return [name for name in read(path) if name not in RESERVED]


def task(path: Path, name: str) -> TaskParams:
    """Return the section of one task. Raises ConfigError naming the path of every invalid key."""
    value = read(path)
    if name in RESERVED or name not in value:
        raise ConfigError(f"{path}: no section {reading.short(name)}; sections: {_sections(value)}")
    _refuse_unfit(str(path), name)
    return validated(path, name, TaskParams, value[name])


def expect_name(name: str) -> None:
    """Raise ConfigError unless a new task may have this name."""
    _refuse_unfit("task", name)
    if name in RESERVED:
        raise ConfigError(f"task: {name!r} is a section of params.yaml that is no task; choose another name")


def _refuse_unfit(where: str, name: str) -> None:
    """Raise ConfigError unless the name is one word: names become part of paths, addresses and commands."""
    try:
        TypeAdapter(Name).validate_python(name, strict=True)
    except ValidationError as error:
        raise ConfigError(
            f"{where}: {reading.short(name)}: a task's name is at most 40 lower case letters, digits and _, and begins "
            "with a letter"
        ) from error


def validated(path: Path | None, name: str, kind: type[S], value: Any) -> S:
    """Return the section `name` of the file `path` as `kind`. name: empty if the file is one section.

    Raises ConfigError naming the path of every invalid key.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = error.errors()
        lines = [_sentence(name, problem) for problem in problems[:SHOWN]]
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ConfigError((f"{path}: " if path else "") + "; ".join(lines + more)) from error


def _sections(value: Mapping[str, Any]) -> str:
    return reading.cut(", ".join(key for key in value if key not in RESERVED), 400) or "none"


def _sentence(name: str, problem: Any) -> str:
    where = ".".join([*([name] if name else []), *(reading.cut(str(part)) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key (misspelled?)"
    if problem["type"] == "missing":
        return f"{where}: missing"
    if problem["type"] == "value_error":  # a rule over several keys, whose message includes the values
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {problem['msg']}, got {reading.short(problem['input'])}"
