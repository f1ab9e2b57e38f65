"""What every test shares: a silent, private environment, and the real demonstrations where they can be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vqbet import environment

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(environment.SILENCE)
os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side: spinning threads would be in each other's way
for name in ("SDL_VIDEODRIVER", "PYGAME_HIDE_SUPPORT_PROMPT", "MUJOCO_GL", "MPLCONFIGDIR"):
    os.environ.setdefault(name, environment.embedded(ROOT)[name])


@pytest.fixture(scope="session")
def real_demos() -> Path:
    """Real demonstrations: $VQBET_DEMOS, else ../shared/data. Missing: a failure in CI, a skip elsewhere."""
    folder = Path(os.environ.get("VQBET_DEMOS", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        sentence = (
            f"no real demonstrations at {folder}: unpack the published Push-T replay buffer to <folder>/pusht/ "
            "and set VQBET_DEMOS=<folder>"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return folder
