"""Folder and parameters of the project that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def root() -> Path:
    """Prepare the environment and return the folder of the project around the working directory."""
    from vqbet import environment

    return environment.prepare()


def project(task: str) -> tuple[Path, TaskParams]:
    """Return the project's folder and the parameters of one task. Raises ConfigError where there is no such task."""
    from vqbet import config  # imported late, so that `--help` does not wait for pydantic

    folder = root()
    return folder, config.task(folder / "params.yaml", task)
