"""What every test shares: a silent, private environment, and the real demonstrations where they can be had."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vqbet import environment

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(environment.SILENCE)
os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side: spinning threads would be in each other's way
for name in ("SDL_VIDEODRIVER", "PYGAME_HIDE_SUPPORT_PROMPT", "MUJOCO_GL", "MPLCONFIGDIR"):
    os.environ.setdefault(name, environment.embedded(ROOT)[name])


@pytest.fixture(scope="session")
def real_demos() -> Callable[[str], Path]:
    """The folder of a task's published demonstrations, in $VQBET_DEMOS, else in ../shared/data.

    Missing where $VQBET_DEMOS says they are: a failure. Missing elsewhere: a skip, for they cannot be had by everybody.
    """

    def folder(task: str) -> Path:
        found = Path(os.environ.get("VQBET_DEMOS", ROOT.parent / "shared" / "data")) / task
        if not found.is_dir():
            without = pytest.fail if "VQBET_DEMOS" in os.environ else pytest.skip
            without(
                f"no real demonstrations at {found}: unpack the published replay buffer of {task} to <folder>/{task}/ "
                "and set VQBET_DEMOS=<folder>"
            )
        return found

    return folder
