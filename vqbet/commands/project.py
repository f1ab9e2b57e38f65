"""The project that a command works on: its folder and its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def root() -> Path:
    """Return the folder of the project around the working directory, its environment prepared."""
    from vqbet import environment

    return environment.prepare()


def project(task: str) -> tuple[Path, TaskParams]:
    """Return the project's folder and the parameters of one task. Raises ConfigError where there is no such task."""
    from vqbet import config  # here, since `--help` must not wait for pydantic

    folder = root()
    return folder, config.task(folder / "params.yaml", task)
