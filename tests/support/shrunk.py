"""Shipped parameters of a task, reduced so that its stages take seconds."""

from __future__ import annotations

from pathlib import Path

from vqbet import config
from vqbet.config import TaskParams

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
SMALL = {
    "tokenizer": {
        "steps": 20,
        "batch": 64,
        "health": {"max_mean_error": 9.0, "max_p99_error": 99.0, "min_used": 0.0},
    },
    "prior": {"steps": 4, "batch": 16, "width": 8, "heads": 1, "depth": 1, "head_hidden": 8, "warmup": 1},
    "evaluate": {"episodes": 3, "videos": 0},
}


def shrunk(task: str, **changed: dict[str, object]) -> TaskParams:
    """Return a task's parameters with the values of SMALL. changed: values by section that take precedence."""
    sections = config.task(PARAMS, task).model_dump(by_alias=True)
    for changes in (SMALL, changed):
        for name, values in changes.items():
            sections[name] |= values
    return TaskParams.model_validate(sections)
