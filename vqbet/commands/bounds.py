"""Conditions for a promotion, read from the committed params.yaml, so that an uncommitted edit has no effect."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vqbet import config, versions
from vqbet.config import TaskParams
from vqbet.contract import ConfigError, GateError
from vqbet.evaluation.plan import Plan, Slice

# Fields of a plan that equal the values of the section `gate`.
BOUNDS = ("metric", "question", "margin", "alpha", "power", "floor", "min_modes", "stopping")
PARAMS = "params.yaml"


def committed(root: Path, task: str) -> TaskParams:
    """Return the task's parameters in the last commit, or in the working copy where there is no repository or commit.

    Raises ConfigError where the committed file has no such task.
    """
    content = versions.committed(root, PARAMS)
    if content is None:
        return config.task(root / PARAMS, task)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PARAMS
        path.write_bytes(content)
        try:
            return config.task(path, task)
        except ConfigError as error:
            said = str(error).removeprefix(f"{path}: ")
            raise ConfigError(f"{PARAMS} of the last commit: {said}; commit params.yaml first") from error


def approvals(root: Path, task: str) -> int:
    """Return the number of people who must approve a promotion."""
    return committed(root, task).promotion.approvals


def check(root: Path, task: str, plan: Plan) -> None:
    """Raise GateError where the plan's bounds differ from the committed params.yaml."""
    asked = committed(root, task).gate
    wanted = {name: getattr(asked, name) for name in BOUNDS}
    wanted |= {"looks": tuple(asked.looks), "baselines": tuple(asked.baselines)}
    wanted["slices"] = tuple(Slice(name, **part.model_dump()) for name, part in asked.slices.items())
    for name, value in wanted.items():
        if getattr(plan, name) != value:
            raise GateError(
                f"{task}.gate.{name}: the verdict was sought with {_short(getattr(plan, name))}, the committed "
                f"params.yaml says {_short(value)}; commit what was judged, for others to "
                "see, or judge what is committed"
            )


def _short(value: object) -> str:
    parts = value if isinstance(value, tuple) else (value,)
    return ", ".join(part.name if isinstance(part, Slice) else str(part) for part in parts)[:80]
